// Command uvsadm speaks ipvsadm's language to uvsd. Called ipvsadm, ipvsadm-save or ipvsadm-restore it is those.
package main

import (
	"context"
	"os"

	"uvs/control/ipvsadm"
)

// An interrupt ends the process as it stands: uvsd applies a change whole or not at all, so nothing needs tidying up.
func main() {
	os.Exit(ipvsadm.Main(context.Background(), os.Args,
		ipvsadm.System{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
}
