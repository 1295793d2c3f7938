// Command uvs-agent runs on a real server and tells directors how much of its usual share of connections it can take: it
// answers HAProxy's agent-check protocol. See docs/weights.md and uvs-agent --help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"uvs/health/agent"
)

// version is set at build time.
var version = "unknown"

func main() {
	switch err := run(os.Args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "uvs-agent:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	switch {
	case o.version:
		fmt.Println("uvs-agent", version)
		return nil
	case len(o.command) > 0:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		answer, err := agent.Tell(ctx, o.socket, strings.Join(o.command, " "))
		if err == nil {
			fmt.Println(answer)
		}
		return err
	}
	return serve(o)
}

// serve answers until a signal ends it.
func serve(o *options) error {
	logger := log.New(os.Stderr, "uvs-agent: ", 0)
	o.agent.Log = logger.Printf
	a := agent.New(o.agent)
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	var control net.Listener
	if o.socket != "" {
		if control, err = agent.ListenControl(o.socket); err != nil {
			return fmt.Errorf("the socket for commands (--socket): %w", err)
		}
		defer control.Close()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switches := make(chan os.Signal, 1)
	signal.Notify(switches, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(switches)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop() // before the wait: an error ends the others
	running.Go(func() { follow(ctx, switches, o.agent.Drain, logger) })
	if control != nil {
		running.Go(func() {
			if err := a.Control(ctx, control); err != nil {
				logger.Print(err)
			}
		})
	}
	logger.Printf("answers on %v: %v", l.Addr(), a.Reply())
	return a.Serve(ctx, l)
}

// follow turns signals into what they stand for, until ctx ends.
func follow(ctx context.Context, signals <-chan os.Signal, s *agent.Switch, logger *log.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			command := "drain"
			if sig == syscall.SIGUSR2 {
				command = "ready"
			}
			if err := s.Set(command); err == nil {
				logger.Printf("%v: %s", sig, command)
			}
		}
	}
}
