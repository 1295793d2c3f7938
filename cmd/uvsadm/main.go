// Command uvsadm speaks ipvsadm's language to uvsd. Called ipvsadm, ipvsadm-save or ipvsadm-restore it is those.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"uvs/control/ipvsadm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	exit := ipvsadm.Main(ctx, os.Args, ipvsadm.System{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(exit)
}
