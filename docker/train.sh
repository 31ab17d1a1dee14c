#!/bin/sh
# Train a recipe, its teachers first, and put the bundle where serving watches. Run again, it goes on
# where it was stopped; what is there already is left as it is.
#   train.sh RECIPE [TEACHER...]
# RUNS and BUNDLES name other directories than those of the image.
set -eu
recipe=$1
shift
runs=${RUNS:-/runs}
bundle=${BUNDLES:-/bundles}/$recipe
# A teacher's teacher comes before it; compose gives all of them in one word.
for run in $* "$recipe"; do
    if [ -e "$runs/$run" ]; then
        offramp train "$run" --runs "$runs" --resume
    else
        offramp train "$run" --runs "$runs" --download
    fi
done
if [ -e "$bundle" ]; then
    echo "$bundle is there already; delete it to have the run exported again."
else
    offramp export "$runs/$recipe" --output "$bundle"
fi
