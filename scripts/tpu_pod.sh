#!/bin/bash
# Trains on a TPU slice, and again after every preemption, until the training is done:
#
#   NAME=run ZONE=us-west4-a TYPE=v5litepod-16 scripts/tpu_pod.sh \
#     paligemma train --config transfers/forkme.py:… --workdir gs://BUCKET/run
#
# The slice is a queued resource, created where there is none and created anew where it was
# preempted. The last commit of this repository is installed on all workers, and the command runs on
# each of them in the repository's folder. The workdir must outlive the slice and be the same for
# all workers (docs/launch.md). Exit status: that of the command. Start it where it can stay as long
# as the training takes, such as in tmux.
set -euo pipefail

: "${NAME:?name of the queued resource and of its slice}"
: "${ZONE:?zone, such as us-west4-a}"
: "${TYPE:?accelerator type, such as v5litepod-16}"
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}  # runtime version, goes with the type
SPOT=${SPOT:-yes}                        # cheaper, preempted at any time; "no": on demand
SETUP=${SETUP:-true}                     # command for every worker first, such as mounting a bucket
DELETE=${DELETE:-no}                     # "yes": delete the slice when the training is done
POLL=${POLL:-30}                         # seconds between questions about the state
(($#)) || { echo "usage: NAME=… ZONE=… TYPE=… $0 COMMAND…" >&2; exit 2; }

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD

queued() { gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"; }

# One command at a time: where only the connection was lost, the one that still runs ends first.
on_all() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all \
    --command="flock .paligemma.lock bash -c ${1@Q}"
}

state() {
  local answer
  if answer=$(queued describe --format='value(state.state)' 2>&1); then
    echo "${answer##*$'\n'}"
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo NONE
  else  # such as a network that is down for a moment
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

create() {
  local spot=()
  [[ $SPOT == no ]] || spot=(--spot)
  queued create --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" \
    "${spot[@]}"
}

wait_until_active() {
  local now
  while now=$(state); [[ $now != ACTIVE ]]; do
    echo "$NAME: $now"
    case $now in
      NONE) create ;;
      SUSPENDED) queued delete --force --quiet ;;  # preempted, does not come back by itself
      FAILED) queued describe && exit 1 ;;
    esac
    sleep "$POLL"
  done
}

# uv brings a Python that is new enough; that of the TPU images may not be.
install() {
  gcloud compute tpus tpu-vm scp "$archive" "$NAME:paligemma_jax.tar.gz" --zone="$ZONE" \
    --worker=all &&
    on_all "set -e; $SETUP
      curl -LsSf https://astral.sh/uv/install.sh | sh
      mkdir -p paligemma_jax && tar xzf paligemma_jax.tar.gz -C paligemma_jax && cd paligemma_jax
      ~/.local/bin/uv venv --quiet --clear --python 3.12
      ~/.local/bin/uv pip install --quiet '.[tpu,gcs]'"
}

while true; do
  wait_until_active
  status=0
  { install && on_all "cd paligemma_jax && PATH=\$PWD/.venv/bin:\$PATH ${*@Q}"; } || status=$?
  case $status in
    0) break ;;
    75) echo "$NAME: preempted, the state is saved" ;;
    2) exit 2 ;;  # wrong input, which is wrong on another slice too
    *)
      if [[ $(state) == ACTIVE ]] && on_all true; then exit "$status"; fi
      echo "$NAME: the slice is gone or does not answer (status $status)"
      sleep "$POLL"
      ;;
  esac
done
[[ $DELETE != yes ]] || queued delete --force --quiet
