#!/bin/sh
# Print .env.example with a new random value behind every empty name:   sh ops/new-env.sh > .env
set -eu
umask 077

while IFS= read -r line; do
  case $line in
    [A-Z]*=) printf '%s%s\n' "$line" "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"$(dirname "$0")/../.env.example"
