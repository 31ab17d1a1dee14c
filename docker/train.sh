#!/bin/sh
# Train a recipe, its teachers first, or on a folder of images, and export the bundle to the directory that
# serving watches. Running it again resumes; finished runs and an existing bundle are kept.
#   train.sh RECIPE [TEACHER...]
#   train.sh FOLDER [OPTION...]      options of `offramp train --data FOLDER`
# RUNS and BUNDLES override the directories of the image.
set -eu
runs=${RUNS:-/runs}
bundles=${BUNDLES:-/bundles}
if [ -d "$1" ]; then
    folder=$1
    shift
    # The last line names the run.
    checkpoint=$(offramp train --data "$folder" --runs "$runs" --resume "$@" | tee /dev/stderr | tail -n 1)
    recipe=${checkpoint##*/}
    set -- --data "$folder"
    [ -e "$runs/$recipe/checkpoint.json" ]
else
    recipe=$1
    shift
    # A teacher's teacher comes before it. compose passes all of them as one word.
    for run in $* "$recipe"; do
        if [ -e "$runs/$run" ]; then
            offramp train "$run" --runs "$runs" --resume
        else
            offramp train "$run" --runs "$runs" --download
        fi
    done
    set --
fi
bundle=$bundles/$recipe
if [ -e "$bundle" ]; then
    echo "$bundle exists already; delete it to export the run again."
else
    offramp export "$runs/$recipe" --output "$bundle" "$@"
fi
