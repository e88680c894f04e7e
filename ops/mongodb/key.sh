#!/bin/sh
# Make the key that the members of a replica set know each other by, once.
#
#   key.sh FILE [OWNER]
#
# MongoDB wants 6 to 1024 base64 characters in a file that nobody but its own user can read.
set -eu

file=$1
owner=${2:-}
if [ -s "$file" ]; then
  echo "key file: there already"
  exit 0
fi
umask 077
rm -f "$file.new"
head -c 512 /dev/urandom | base64 | tr -d '\n' >"$file.new"
chmod 0400 "$file.new"
[ -z "$owner" ] || chown "$owner" "$file.new"
# Complete or not there at all, should the job be stopped on the way.
mv "$file.new" "$file"
echo "key file: made"
