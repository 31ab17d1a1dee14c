"""A large network for the Grocery photographs, alone, behind a distilled front, and as a cascade."""
