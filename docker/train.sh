#!/bin/sh
# Train a recipe, its teacher first, and put the bundle where serving watches. Run again, it goes on
# where it was stopped.
#   train.sh RECIPE [TEACHER]
set -eu
recipe=$1
teacher=${2:-}
for run in $teacher "$recipe"; do
    if [ -e "/runs/$run" ]; then
        offramp train "$run" --runs /runs --resume
    else
        offramp train "$run" --runs /runs --download
    fi
done
offramp export "/runs/$recipe" --output "/bundles/$recipe"
