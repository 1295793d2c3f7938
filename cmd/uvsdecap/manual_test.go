package main

import (
	"bytes"
	"testing"

	"uvs/internal/manual"
)

func TestTheManualKnowsEveryFlag(t *testing.T) {
	var usage bytes.Buffer
	_, _ = parseOptions([]string{"--help"}, &usage)
	manual.HasEveryFlag(t, "uvsdecap", "../../man/uvsdecap.8", usage.String())
}
