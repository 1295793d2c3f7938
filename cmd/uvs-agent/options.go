package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"uvs/health/agent"
)

// options are uvs-agent's command line.
type options struct {
	agent   agent.Config
	listen  string
	socket  string
	command []string // for the agent that runs; none: be it
	version bool
}

const (
	defaultListen = ":9777"
	defaultSocket = "/run/uvs-agent.sock"
)

// parseOptions reads the command line; usage goes to out when asked for or when the line is wrong.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{agent: agent.Config{Importance: agent.DefaultImportance, Drain: new(agent.Switch)}}
	fs := flag.NewFlagSet("uvs-agent", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintln(out, "usage: uvs-agent [options]                      answers directors\n"+
			"       uvs-agent [options] drain|maint|down [why]   tells the one that runs to say so\n"+
			"       uvs-agent [options] ready|status")
		fs.PrintDefaults()
		fmt.Fprintln(out, "\nSIGUSR1 drains, SIGUSR2 ends that.")
	}
	fs.StringVar(&o.listen, "listen", defaultListen, "`address` and TCP port to answer on")
	fs.Func("director", "`addresses` or prefixes that are answered, separated by commas; may be repeated (default everybody)", func(s string) error {
		for one := range strings.SplitSeq(s, ",") {
			p, err := parsePrefix(strings.TrimSpace(one))
			if err != nil {
				return err
			}
			o.agent.Directors = append(o.agent.Directors, p)
		}
		return nil
	})
	w := &o.agent.Importance
	fs.Float64Var(&w.Run, "load", w.Run, "how `much` the load average counts")
	fs.Float64Var(&w.CPU, "cpu", w.CPU, "how `much` pressure on the CPUs counts")
	fs.Float64Var(&w.Memory, "memory", w.Memory, "how `much` pressure on memory counts")
	fs.Float64Var(&w.IO, "io", w.IO, "how `much` pressure on disks counts")
	fs.IntVar(&o.agent.Least, "least", 1, "the least `percentage` that load leads to")
	fs.StringVar(&o.agent.Drain.File, "drain-file", "", "drain for as long as this `file` is there; its first line is the reason")
	fs.StringVar(&o.socket, "socket", defaultSocket, "Unix `socket` for commands, \"\" for none")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.command = fs.Args()
	return o, o.check()
}

// parsePrefix reads a prefix, or an address, which is one of full length.
func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (o *options) check() error {
	w := &o.agent.Importance
	for _, v := range []float64{w.Run, w.CPU, w.Memory, w.IO} {
		if !(v >= 0 && v <= 1000) {
			return fmt.Errorf("--load, --cpu, --memory and --io are from 0 to 1000, not %v", v)
		}
	}
	switch {
	case o.agent.Least < 1 || o.agent.Least > 100:
		return fmt.Errorf("--least %d: it is a percentage from 1 to 100", o.agent.Least)
	case len(o.command) > 0 && o.socket == "":
		return errors.New("a command needs the agent's --socket")
	}
	return nil
}
