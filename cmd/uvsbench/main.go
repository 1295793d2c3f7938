// Command uvsbench measures uvs: `uvsbench micro` its stages one by one, `uvsbench wire` the whole director beside others on
// networks of its own; and compares schedulers: `uvsbench sim` in simulation. See docs/benchmarks.md and
// docs/comparing-schedulers.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uvs/bench"
	"uvs/bench/progress"
	"uvs/packet"
)

const usage = `usage: uvsbench sim --study NAME    schedulers beside each other, simulated
       uvsbench report FILE...    one HTML file with plots of what the others wrote as JSON
       uvsbench micro [options]   stages of the packet path, in the format of Go's benchmarks
       uvsbench wire [options]    uvs beside others, on networks of its own (as root)
       uvsbench scale [options]   ten million connections, 100,000 services, and changes to them
       uvsbench load [options]    connections, requests and datagrams for a director, real or in a lab
       uvsbench replay [options] FILE   what each scheduler would have done with recorded traffic
uvsbench WORD --help explains a word's options.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt doesn't wait for what is being measured
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		status := 1
		var child *exec.ExitError
		switch {
		case errors.As(err, &child) && child.ExitCode() > 0: // has said itself what is wrong
			status = child.ExitCode()
		case errors.Is(err, errLoadFailed):
			status = 3
			fallthrough
		default:
			fmt.Fprintln(os.Stderr, "uvsbench:", err)
		}
		stop()
		os.Exit(status)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("which word? uvsbench help lists them")
	}
	switch word, args := args[0], args[1:]; word {
	case "micro":
		return micro(ctx, args, out)
	case "wire":
		return wire(ctx, args, out)
	case "scale":
		return scaled(ctx, args, out)
	case "load":
		return loaded(ctx, args, out)
	case "replay":
		return replayed(ctx, args, out)
	case "sim":
		return simulate(ctx, args, out)
	case "report":
		return reported(args, out)
	case "forwarder":
		return forwarder(ctx, args, out)
	case "help", "--help", "-h":
		_, err := fmt.Fprintln(out, usage)
		return err
	default:
		return fmt.Errorf("no word %q; uvsbench help lists them", word)
	}
}

// names reads a list of names separated by commas.
func names(to *[]string) func(string) error {
	return func(s string) error {
		for name := range strings.SplitSeq(s, ",") {
			*to = append(*to, strings.TrimSpace(name))
		}
		return nil
	}
}

// micro is the word of that name.
func micro(ctx context.Context, args []string, out io.Writer) error {
	var m bench.Micro
	fs := flag.NewFlagSet("uvsbench micro", flag.ContinueOnError)
	fs.StringVar(&m.Stages, "stages", "", "regular `expression` of the stages to measure (default all)")
	fs.DurationVar(&m.Time, "time", time.Second, "length of each measurement")
	fs.IntVar(&m.Count, "count", 1, "how often each is measured, all in turn")
	fs.BoolVar(&m.Large, "large", false, "with ten million connections, too: 3 GB of memory and some minutes")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	m.Bar = progress.New(os.Stderr, "measuring")
	return m.Run(ctx, out)
}

// wire is the word of that name.
func wire(ctx context.Context, args []string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := bench.Wire{Self: self}
	fs := flag.NewFlagSet("uvsbench wire", flag.ContinueOnError)
	fs.Func("subjects", "what to measure, `names` separated by commas (default all that is installed)", names(&b.Subjects))
	fs.Func("works", "what to measure it at, `names` separated by commas (default all)", names(&b.Works))
	fs.IntVar(&b.Rounds, "rounds", 5, "rounds, each of all subjects")
	fs.DurationVar(&b.Time, "time", 2*time.Second, "length of each measured stretch")
	fs.Float64Var(&b.Rate, "rate", 0, "frames a second that the generator offers; 0 for as many as it can")
	fs.StringVar(&b.Link, "link", "auto", "how uvsd and the bare forwarder receive and send: auto, `ring` or simple")
	fs.Func("uvsd-args", "further `arguments` of uvsd's, separated by blanks", func(s string) error {
		b.UVSDArgs = strings.Fields(s)
		return nil
	})
	fs.StringVar(&b.Programs, "programs", filepath.Dir(self), "`directory` of uvsd and uvsadm")
	fs.Float64Var(&b.Requests, "requests", 500, "HTTP requests a second where they are offered at a fixed rate")
	fs.IntVar(&b.Conns, "conns", 7000, "connections that memory is measured with")
	file := fs.String("json", "", "write the result to this `file`, for uvsbench report")
	samples := fs.String("samples", "", "write every sample to this `file`, in JSON")
	markdown := fs.Bool("markdown", false, "print the goals' table in Markdown alone")
	list := fs.Bool("list", false, "list the subjects and works there are")
	quiet := fs.Bool("quiet", false, "show no progress, and what can't be measured only at the end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case *list:
		s, w := bench.Names()
		_, err := fmt.Fprintf(out, "subjects\n  %s\nworks\n  %s\n", strings.Join(s, "\n  "), strings.Join(w, "\n  "))
		return err
	case os.Geteuid() != 0:
		return errors.New("wire makes network namespaces and needs root")
	}
	if !*quiet {
		b.Bar, b.Trouble = progress.New(os.Stderr, "measuring"), os.Stderr
	}
	report, err := b.Run(ctx)
	if report == nil {
		return err
	}
	print := report.Text
	if *markdown {
		print = report.Markdown
	}
	err = errors.Join(err, print(out))
	if *file != "" {
		f := report.Result()
		f.Command, f.Partial = "uvsbench wire "+strings.Join(args, " "), ctx.Err() != nil
		err = errors.Join(err, f.Write(*file))
	}
	if *samples != "" {
		text, jsonErr := json.MarshalIndent(report, "", "\t")
		err = errors.Join(err, jsonErr, os.WriteFile(*samples, append(text, '\n'), 0o644))
	}
	return err
}

// forwarder is what wire starts in its director's place: bare or single, with the kind of link and the MAC addresses beyond
// eth0 and eth1.
func forwarder(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 4 {
		return errors.New("forwarder is for uvsbench wire alone: ROLE LINK CLIENT-MAC SERVER-MAC")
	}
	cfg := bench.ForwarderConfig{Interface: [2]string{"eth0", "eth1"}, Link: args[1], MAC: bench.ForeignMAC, Ready: out}
	for i := range cfg.To {
		mac, err := net.ParseMAC(args[2+i])
		if err != nil || len(mac) != len(cfg.To[i]) {
			return fmt.Errorf("%q is no MAC address", args[2+i])
		}
		cfg.To[i] = packet.MAC(mac)
	}
	switch args[0] {
	case "bare":
		return bench.Forward(ctx, cfg)
	case "single":
		return bench.ForwardSingly(ctx, cfg)
	}
	return fmt.Errorf("no forwarder %q", args[0])
}
