#!/bin/sh
# Register the two tenants that the development provider's people belong to, unless they are there. Safe to repeat.
set -eu

known=$(livedocs tenant list)
for slug in acme globex; do
  if printf '%s\n' "$known" | grep -q "^$slug "; then
    echo "$slug: there already"
  else
    livedocs tenant create "$slug" --database "livedocs_$slug" --collection notes:_id --collection test:uuid
  fi
done
