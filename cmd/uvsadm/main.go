// Command uvsadm speaks ipvsadm's language to uvsd. Called ipvsadm, ipvsadm-save or ipvsadm-restore it is those.
package main

import (
	"bytes"
	"context"
	"io"
	"os"

	"uvs/config/importer"
	"uvs/control/ipvsadm"
)

// An interrupt ends the process as it stands: uvsd applies a change whole or not at all, so nothing needs tidying up.
func main() {
	os.Exit(ipvsadm.Main(context.Background(), os.Args,
		ipvsadm.System{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Import: importFile}))
}

// importFile is the word import's.
func importFile(path, kind, configID string, stdin io.Reader) (*ipvsadm.Imported, error) {
	r, err := importer.Import(path, importer.Options{Kind: importer.Kind(kind), ConfigID: configID, Stdin: stdin})
	if err != nil {
		return nil, err
	}
	i := &ipvsadm.Imported{YAML: r.YAML(), Lost: r.Report.Count(importer.Missing), Wrong: r.Check()}
	var report, json bytes.Buffer
	if _, err := r.Report.WriteTo(&report); err != nil {
		return nil, err
	}
	if err := r.Report.WriteJSON(&json); err != nil {
		return nil, err
	}
	i.Report, i.JSON = report.Bytes(), json.Bytes()
	return i, nil
}
