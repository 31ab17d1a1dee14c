"""What acts when images no longer resemble the calibration table: drift alarms and shadow checks."""
