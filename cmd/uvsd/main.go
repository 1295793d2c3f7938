// Command uvsd is the director: it takes virtual addresses on the host's Ethernet interfaces and moves the packets of their
// virtual services to real servers. See the README for a first deployment and uvsd --help for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// version is set at build time.
var version = "unknown"

func main() {
	if err := run(os.Args[1:]); err != nil {
		for reason := range strings.Lines(err.Error()) { // one each, of a host check that found several
			fmt.Fprintln(os.Stderr, "uvsd:", strings.TrimSuffix(reason, "\n"))
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parseOptions(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.version {
		fmt.Println("uvsd", version)
		return nil
	}
	log, err := newLogger(o.logLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := newDaemon(o, log)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx), d.close())
}

func newLogger(level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: must be debug, info, warn or error", level)
	}
	cfg := zap.NewProductionConfig()
	cfg.Level = zap.NewAtomicLevelAt(l)
	cfg.Sampling = nil
	cfg.DisableStacktrace = true
	cfg.DisableCaller = true
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return cfg.Build()
}
