#!/usr/bin/env bash
# gofmt, go vet and staticcheck over the whole module, mandoc over the manual pages; and whether make broken still knows the lines that it breaks.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l $(git ls-files --cached --others --exclude-standard '*.go'))
if [ -n "$unformatted" ]; then
	echo "gofmt differs: $unformatted" >&2
	exit 1
fi
go vet ./...
go tool staticcheck ./...
if ! command -v mandoc >/dev/null; then
	scripts/deps.sh mandoc
fi
mandoc -T lint -W warning man/*.[158]
scripts/broken.sh --list >/dev/null
