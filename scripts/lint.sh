#!/usr/bin/env bash
# gofmt, go vet and staticcheck over the whole module; and whether make broken still knows the lines that it breaks.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l $(git ls-files --cached --others --exclude-standard '*.go'))
if [ -n "$unformatted" ]; then
	echo "gofmt differs: $unformatted" >&2
	exit 1
fi
go vet ./...
go tool staticcheck ./...
scripts/broken.sh --list >/dev/null
