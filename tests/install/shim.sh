#!/bin/sh
# Stands for systemctl and scp in a chroot: hands its arguments to the check, which runs outside, and waits for the answer.
set -eu
folder=/run/install-check
request=$folder/$$
printf '%s\n' "${0##*/}" "$PWD" "$@" > "$request.tmp"
mv "$request.tmp" "$request.request"
until [ -e "$request.status" ]; do sleep 0.05; done
cat "$request.answer"
exit "$(cat "$request.status")"
