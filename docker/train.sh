#!/bin/sh
# Train a recipe, its teachers first, and export the bundle to the directory that serving watches. Running it
# again resumes; finished runs and an existing bundle are kept.
#   train.sh RECIPE [TEACHER...]
# RUNS and BUNDLES override the directories of the image.
set -eu
recipe=$1
shift
runs=${RUNS:-/runs}
bundle=${BUNDLES:-/bundles}/$recipe
# A teacher's teacher comes before it. compose passes all of them as one word.
for run in $* "$recipe"; do
    if [ -e "$runs/$run" ]; then
        offramp train "$run" --runs "$runs" --resume
    else
        offramp train "$run" --runs "$runs" --download
    fi
done
if [ -e "$bundle" ]; then
    echo "$bundle exists already; delete it to export the run again."
else
    offramp export "$runs/$recipe" --output "$bundle"
fi
