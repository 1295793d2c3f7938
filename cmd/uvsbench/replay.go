package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"uvs/bench/progress"
	"uvs/bench/replay"
	"uvs/sched/trial"
)

const replayUsage = `usage: uvsbench replay [options] FILE

What would each scheduler have done with this recorded traffic and these servers? FILE is a capture (pcap or pcapng, gzipped or not,
of Ethernet, VLANs, Linux cooked, raw IP) or a trace in CSV; - is the standard input. It is read once, in memory that doesn't depend
on its length. docs/replay.md has the columns of a trace.

    uvsbench replay --service tcp:192.0.2.100:80 --servers 4 web.pcap
    uvsbench replay --server 10.0.0.11:80,weight=3 --server 10.0.0.12:80 --change 30s:remove:10.0.0.11:80 web.pcap
    uvsbench replay --servers 2 --anonymise web.csv web.pcap        # a trace to give away

options:
`

// replayed is the word replay.
func replayed(ctx context.Context, args []string, out io.Writer) (err error) {
	var cfg replay.Config
	fs := flag.NewFlagSet("uvsbench replay", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), replayUsage)
		fs.PrintDefaults()
	}
	fs.Func("service", "what is balanced, `PROTOCOL:ADDRESS[/BITS][:PORT]`, may be repeated (default all connections)", collect(&cfg.Services, replay.ParseService))
	fs.Func("server", "a real server, `ADDRESS:PORT[,weight=N][,upper=N][,lower=N]`, may be repeated; order counts", collect(&cfg.Servers, replay.ParseServer))
	equal := fs.Int("servers", 0, "so `many` equal real servers instead")
	fs.Func("change", "a change of the servers, `TIME:SERVER` or TIME:remove:ADDRESS:PORT, may be repeated", collect(&cfg.Changes, replay.ParseChange))
	fs.Func("scheduler", "a scheduler to compare, `NAME[:FLAG,...]`, may be repeated (default all)", func(s string) error {
		cfg.Schedulers = append(cfg.Schedulers, s)
		_, _, err := trial.Parse(s)
		return err
	})
	fs.IntVar(&cfg.Flows, "flows", 1<<18, "connections followed at a time")
	fs.IntVar(&cfg.Clients, "clients", 1<<16, "clients remembered, to tell which were moved")
	fs.DurationVar(&cfg.TCPTimeout, "tcp-timeout", 0, "of TCP connections that nothing is heard of (default 15m)")
	fs.DurationVar(&cfg.FINTimeout, "tcpfin-timeout", 0, "of TCP connections after a FIN (default 2m)")
	fs.DurationVar(&cfg.UDPTimeout, "udp-timeout", 0, "of UDP flows (default 5m)")
	other := fs.String("anonymise", "", "write a trace of the recording with other addresses to this `file`, network by network the same")
	keyFile := fs.String("key", "", "the key for that is in this `file`; with the same key addresses become the same (default a random one)")
	file := fs.String("json", "", "write the result to this `file`, for uvsbench report")
	quiet := fs.Bool("quiet", false, "print no tables and show no progress")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("which recording? one FILE, or - for the standard input")
	}
	switch {
	case *equal > 0 && len(cfg.Servers) > 0:
		return errors.New("either --server or --servers")
	case *equal > 250:
		return errors.New("at most 250 servers by --servers; name others with --server")
	}
	for i := range *equal {
		cfg.Servers = append(cfg.Servers, trial.Server{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Weight: 1})
	}
	if cfg.Key, err = replayKey(*keyFile); err != nil {
		return err
	}
	name, in, size := fs.Arg(0), io.Reader(os.Stdin), int64(0)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
		in = f
	}
	if *other != "" {
		f, err := os.OpenFile(*other, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		cfg.Anonymise = f
	}
	var bar *progress.Bar
	if !*quiet && size > 0 {
		bar = progress.New(os.Stderr, "replaying "+filepath.Base(name))
		cfg.Progress = func(n int64) { bar.Set(float64(n), float64(size), fmt.Sprintf("%d MB", n>>20)) }
	}
	o, err := replay.Run(ctx, in, cfg)
	bar.Done()
	if o == nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if !*quiet {
		err = errors.Join(err, o.Text(out))
	}
	if *file != "" {
		f := o.Result(filepath.Base(name))
		f.Command = "uvsbench replay " + strings.Join(args, " ")
		err = errors.Join(err, f.Write(*file))
	}
	return err
}

// collect appends what parse makes of an option's values.
func collect[T any](to *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = append(*to, v)
		}
		return err
	}
}

// replayKey is the anonymiser's key.
func replayKey(file string) ([]byte, error) {
	if file != "" {
		key, err := os.ReadFile(file)
		if err == nil && len(key) < 16 {
			err = fmt.Errorf("%s: a key of %d bytes is too short, 16 are the least", file, len(key))
		}
		return key, err
	}
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}
