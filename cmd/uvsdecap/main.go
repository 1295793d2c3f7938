// Command uvsdecap decapsulates IP-in-IP, GRE and GUE, of and over both IP families, on a real server behind a director that
// tunnels (ipvsadm's -i), where the server's kernel has no module for that. See the README and uvsdecap --help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"uvs/dataplane/decap"
)

// version is set at build time.
var version = "unknown"

func main() {
	switch err := run(os.Args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "uvsdecap:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Println("uvsdecap", version)
		return nil
	}
	log, err := newLogger(o.logLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o.decap.Log = log
	d, err := decap.New(o.decap)
	if err != nil {
		return err
	}
	defer reportOn(syscall.SIGUSR1, log, d)()
	err = d.Run(ctx)
	report(log, d)
	return errors.Join(err, d.Close())
}

// report logs the counts so far.
func report(log *zap.Logger, d *decap.Decapsulator) {
	stats := d.Stats()
	log.Info("packets", zap.Inline(&stats))
}

// reportOn logs the counts at each such signal, until the result is called.
func reportOn(s os.Signal, log *zap.Logger, d *decap.Decapsulator) (stop func()) {
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(signals, s)
	go func() {
		defer close(done)
		for range signals {
			report(log, d)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
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
