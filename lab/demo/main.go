// Command demo shows what uvs is for, on a network of its own: `make demo` builds it as bin/uvsdemo and runs it. For each
// forwarding method it raises a lab of network namespaces, starts the uvsd that lies beside it (for tunnelling the uvsdecap, too)
// and ordinary HTTP and UDP servers, drives them with an ordinary client, changes the servers under load, and checks everything it shows: all
// of it over IPv4 and over IPv6.
//
// It needs root or user namespaces. Its exit status is 0 if all went well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uvs/lab"
)

// timeLimit ends a demo that hangs, with an error that says where.
const timeLimit = 2 * time.Minute

func main() {
	if len(os.Args) > 1 && os.Args[1] == serverRole {
		os.Exit(report(serve(os.Args[2:])))
	}
	fs := flag.NewFlagSet("uvsdemo", flag.ExitOnError)
	keep := fs.Bool("keep", false, "leave everything up and print the commands to play with it")
	remove := fs.Bool("remove", false, "remove what --keep of this same program left up")
	fs.Parse(os.Args[1:])
	switch {
	case fs.NArg() > 0:
		os.Exit(report(fmt.Errorf("unexpected argument %q", fs.Arg(0))))
	case *remove:
		os.Exit(report(removeKept()))
	}
	if os.Geteuid() != 0 {
		os.Setenv(rootlessVariable, "1")
	}
	if err := lab.Reexec(false); err != nil { // from here on root, if only in a user namespace
		os.Exit(report(err))
	}
	os.Exit(report(run(*keep, os.Getenv(rootlessVariable) != "")))
}

// rootlessVariable tells the program, run again as root of a user namespace, that its user isn't root.
const rootlessVariable = "UVS_DEMO_ROOTLESS"

// errInterrupted is how a demo ends that somebody stopped.
var errInterrupted = errors.New("interrupted")

// report prints an error and returns the exit status that goes with it.
func report(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(os.Stderr, "\nuvsdemo: interrupted; everything is taken down again")
		return 130 // as a shell says it of SIGINT
	default:
		fmt.Fprintln(os.Stderr, "uvsdemo:", err)
		return 1
	}
}

// run shows every method in turn and then sums up.
func run(keep, rootless bool) error {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(interrupted, timeLimit, fmt.Errorf("the demo takes longer than %v", timeLimit))
	defer cancel()
	d, err := newDemo(keep, rootless)
	if err != nil {
		return err
	}
	fmt.Println("uvs demo: the director in user space, balancing real traffic between network namespaces of this machine")
	err = d.methods(ctx)
	if interrupted.Err() != nil && err != nil {
		err = errInterrupted
	}
	if err == nil {
		d.summary()
		if keep {
			err = d.leaveUp(interrupted)
		}
	}
	// A log is of use after a failure only.
	return errors.Join(err, d.close(err == nil || errors.Is(err, errInterrupted), err == nil))
}

// demo is one run.
type demo struct {
	bin      string // where uvsd, uvsadm and uvsdecap lie: beside this program
	self     string
	dir      string // for sockets and logs
	keep     bool
	rootless bool
	ipv6     bool // the kernel has it
	stages   []*stage
	results  []result
}

func newDemo(keep, rootless bool) (*demo, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	_, noIPv6 := os.Stat("/proc/sys/net/ipv6")
	d := &demo{bin: filepath.Dir(self), self: self, keep: keep, rootless: rootless, ipv6: noIPv6 == nil}
	for _, name := range []string{"uvsd", "uvsadm", "uvsdecap"} {
		if _, err := os.Stat(filepath.Join(d.bin, name)); err != nil {
			return nil, fmt.Errorf("%s is not beside this program: run make build (%w)", name, err)
		}
	}
	d.dir, err = workDir(keep && !rootless, self)
	return d, err
}

// methods shows each method. Without keep a stage is gone before the next is raised.
func (d *demo) methods(ctx context.Context) error {
	for _, m := range methods {
		if m.tunnel {
			if why := noTUN(d.rootless); why != "" {
				heading(fmt.Sprintf("%s: %s", m.name, m.title))
				fmt.Printf("\n  Not shown: %s\n", strings.ReplaceAll(why, "\n", "\n  "))
				d.results = append(d.results, result{method: m, absent: true})
				continue
			}
		}
		r, err := d.show(ctx, m)
		if err != nil {
			if ctx.Err() != nil {
				err = errors.Join(context.Cause(ctx), err)
			}
			return fmt.Errorf("%s: %w", m.name, err)
		}
		d.results = append(d.results, r)
	}
	return nil
}

// show raises the stage of a method and plays all scenes on it.
func (d *demo) show(ctx context.Context, m method) (r result, err error) {
	start := time.Now()
	s, err := d.raise(m)
	if err != nil {
		return r, err
	}
	if d.keep {
		d.stages = append(d.stages, s)
	} else {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	r.method = m
	for _, scene := range []func(context.Context, *stage, *result) error{
		setUp, byWeight, bulk, echo, underLoad, listing,
	} {
		if err := scene(ctx, s, &r); err != nil {
			return r, fmt.Errorf("%w\nthe log of uvsd is %s", err, s.log)
		}
	}
	r.took = time.Since(start)
	return r, nil
}

// close takes down what still stands, if it isn't to be kept, and the directory unless a log in it is of use.
func (d *demo) close(logsOver, complete bool) error {
	kept := complete && d.keep && !d.rootless
	var errs []error
	for _, s := range d.stages {
		if kept {
			errs = append(errs, s.topo.Close()) // leaves all of it up, as it was made to be kept
		} else {
			errs = append(errs, s.close())
		}
	}
	if logsOver && !kept {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
