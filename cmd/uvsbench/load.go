package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uvs/bench"
	"uvs/bench/load"
	"uvs/bench/progress"
)

const loadUsage = `usage: uvsbench load [options]

Makes load for a director: TCP connections, held ones, HTTP requests and UDP datagrams, each at a rate of its own, from as many source
addresses as --sources has. What is to begin at a time begins then, whatever becomes of the rest, and latency counts from that time.

    uvsbench load --lab dr --requests 1000 --datagrams 2000 --hold 1000      # a lab with uvsd in it, as root
    uvsbench load --target 192.0.2.100:80 --requests 500                     # a real director
    ip route add local 10.64.0.0/16 dev lo                                   # 65,534 clients, if answers to them come here
    uvsbench load --target 192.0.2.100:80 --requests 500 --sources 10.64.0.0/16

The status is 0 if all went well, 3 if anything failed, 1 if no load could be made. docs/load.md says more.

options:
`

// errLoadFailed says that some of the load failed.
var errLoadFailed = errors.New("some of the load failed")

// loaded is the word load.
func loaded(ctx context.Context, args []string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var cfg load.Config
	l := bench.LoadLab{Self: self}
	fs := flag.NewFlagSet("uvsbench load", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), loadUsage)
		fs.PrintDefaults()
	}
	fs.TextVar(&cfg.TCP, "target", netip.AddrPort{}, "where connections and requests go, `ADDRESS:PORT`")
	fs.TextVar(&cfg.UDP, "udp-target", netip.AddrPort{}, "where datagrams go, `ADDRESS:PORT`: something that echoes them")
	fs.Float64Var(&cfg.Connections, "connections", 0, "TCP connections a second, opened and closed")
	fs.Float64Var(&cfg.Requests, "requests", 0, "HTTP requests a second, each on a connection of its own")
	fs.Float64Var(&cfg.Datagrams, "datagrams", 0, "UDP datagrams a second")
	fs.IntVar(&cfg.Hold, "hold", 0, "connections to open and hold to the end")
	fs.Float64Var(&cfg.HoldRate, "hold-rate", 0, "how many of those are opened a second (default so that they are there after a third of the time)")
	fs.StringVar(&cfg.Path, "path", "/", "what requests ask for")
	fs.IntVar(&cfg.Size, "size", 100, "`bytes` of a datagram's payload")
	fs.IntVar(&cfg.Flows, "flows", 0, "sockets that datagrams are sent from (default one for each source, at most 1000)")
	fs.Func("sources", "the clients' `network`, such as 10.64.0.0/16, may be repeated", collect(&cfg.Sources, netip.ParsePrefix))
	fs.BoolVar(&cfg.Transparent, "transparent", false, "take sources that aren't the host's own (IP_TRANSPARENT)")
	fs.DurationVar(&cfg.Time, "time", 10*time.Second, "how long")
	fs.DurationVar(&cfg.Timeout, "timeout", 5*time.Second, "when an answer counts as missing")
	fs.BoolVar(&cfg.Uneven, "uneven", false, "let intervals vary as those of independent clients do")
	fs.IntVar(&cfg.Most, "most", 20_000, "connections and requests under way at once; others fail")
	fs.StringVar(&l.Method, "lab", "", "put it on a lab with uvsd instead of --target: `dr` or nat (as root)")
	fs.StringVar(&l.Scheduler, "scheduler", "wlc", "of the lab's services")
	fs.IntVar(&l.Servers, "servers", 2, "real servers in the lab")
	fs.StringVar(&l.Programs, "programs", filepath.Dir(self), "`directory` of uvsd and uvsadm, for the lab")
	file := fs.String("json", "", "write the result to this `file`, for uvsbench report")
	subject := fs.String("subject", "", "what the result calls that which the load was put on (default the target)")
	quiet := fs.Bool("quiet", false, "print no tables and show no progress")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if l.Method != "" {
		if cfg.TCP.IsValid() || cfg.UDP.IsValid() || len(cfg.Sources) > 0 {
			return errors.New("--lab has targets and sources of its own")
		}
		return l.Run(ctx, args)
	}
	var bar *progress.Bar
	if !*quiet {
		bar = progress.New(os.Stderr, "load")
		cfg.Progress = loadProgress(bar)
	}
	report, err := load.Run(ctx, cfg)
	bar.Done()
	if err != nil {
		return err
	}
	if !*quiet {
		err = report.Text(out)
	}
	if *file != "" {
		name := *subject
		if name == "" {
			name = strings.Join(report.Targets, ", ")
		}
		f := report.Result(name)
		f.Machine, f.Command = bench.Machine(), "uvsbench load "+strings.Join(args, " ")
		err = errors.Join(err, f.Write(*file))
	}
	if err == nil && report.Failed() {
		err = errLoadFailed
	}
	return err
}

// loadProgress is what the bar says of each kind of load: its rate since the last look, and what failed.
func loadProgress(bar *progress.Bar) func(*load.Snapshot) {
	last := map[string]uint64{}
	var at time.Duration
	return func(s *load.Snapshot) {
		var notes []string
		for _, k := range s.Kinds {
			note := fmt.Sprintf("%s %.0f/s", k.Kind, float64(k.Done-last[k.Kind])/max((s.Elapsed-at).Seconds(), 1e-3))
			if k.Kind == load.Held {
				note = fmt.Sprintf("%d held", k.Begun)
			}
			if k.Failed > 0 {
				note += fmt.Sprintf(" (%d failed)", k.Failed)
			}
			last[k.Kind] = k.Done
			notes = append(notes, note)
		}
		at = s.Elapsed
		bar.Set(s.Elapsed.Seconds(), s.Of.Seconds(), strings.Join(notes, ", "))
	}
}
