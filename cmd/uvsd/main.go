// Command uvsd is the director: it takes virtual addresses on the host's Ethernet interfaces and moves the packets of their
// virtual services to real servers. See the README for a first deployment and uvsd --help for its flags.
package main

import (
	"cmp"
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
	if o.checkFile != "" {
		return checkFile(o.checkFile, os.Stdout)
	}
	level := zap.NewAtomicLevel()
	if err := setLevel(level, o.logLevel); err != nil {
		return err
	}
	if !o.levelGiven { // a reload may change it
		o.setLevel = func(name string) { _ = setLevel(level, cmp.Or(name, "info")) }
	}
	log, err := newLogger(level)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	d, err := newDaemon(o, log)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx, hup), d.close())
}

func setLevel(level zap.AtomicLevel, name string) error {
	l, err := zapcore.ParseLevel(name)
	if err != nil {
		return fmt.Errorf("--log-level %q: must be debug, info, warn or error", name)
	}
	level.SetLevel(l)
	return nil
}

func newLogger(level zap.AtomicLevel) (*zap.Logger, error) {
	cfg := zap.NewProductionConfig()
	cfg.Level = level
	cfg.Sampling = nil
	cfg.DisableStacktrace = true
	cfg.DisableCaller = true
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return cfg.Build()
}
