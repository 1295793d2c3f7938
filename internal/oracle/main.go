// Command oracle compares uvs with the real ip_vs, decision by decision: it boots the kernel's module in user-mode Linux, runs
// random sequences of commands and packets on it, and replays what it did through uvs's own packet path and control.
//
// The kernel is asked first, so that a sequence can follow its choices (answers come from the server that was chosen), and what
// it did is a trace like those of testdata/golden. Each sequence has clients, ports and marks of its own, because a machine keeps
// the connections of the earlier ones; uvs starts afresh with each.
//
// The sequences keep clear of what differs for a reason that is not uvs's: addresses without a service (the kernel's host has
// them all the same), the moment until the kernel's next timer tick (there are waits), servers that leave DR for another method
// while they have connections (the kernel then sends by a stale route), and the IP identification of packets that the director
// makes itself. Seconds to live may differ by two.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uvs/internal/conformance"
	"uvs/lab/uml"
)

func main() {
	seed := flag.Uint64("seed", 0, "seed of the sequences; 0: a random one")
	n := flag.Int("n", 300, "how many sequences")
	first := flag.Int("first", 0, "number of the first one")
	perBoot := flag.Int("per-boot", 30, "sequences to a boot")
	replay := flag.String("replay", "", "run the sequence in this file instead, on the kernel and on uvs")
	dir := flag.String("dir", "bin/oracle", "where the sequences that differ are written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	c := &comparison{seed: *seed, dir: *dir, perBoot: *perBoot}
	err := c.run(ctx, *replay, *first, *n)
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(2)
	}
	if c.different > 0 {
		os.Exit(1)
	}
}

// comparison is a run of the program.
type comparison struct {
	seed      uint64
	dir       string
	perBoot   int
	tools     *uml.Tools
	m         *machine
	kernel    string
	done      int // on this machine
	different int // sequences
	packets   int
	commands  int
	looks     int // at counts and connections
	decisions map[string]int
}

func (c *comparison) run(ctx context.Context, replay string, first, n int) error {
	dir, err := os.MkdirTemp("", "uvs-oracle-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t, err := uml.Build(ctx, dir)
	if err != nil {
		return err
	}
	c.tools = t
	defer c.shut()
	c.decisions = make(map[string]int)
	if replay != "" {
		return c.again(replay)
	}
	fmt.Printf("oracle: %d sequences, SEED=%d\n", n, c.seed)
	start := time.Now()
	for i := first; i < first+n; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.sequence(i); err != nil {
			return fmt.Errorf("SEED=%d, sequence %d: %w", c.seed, i, err)
		}
		if (i-first+1)%c.perBoot == 0 {
			fmt.Printf("oracle: %d of %d sequences, %d differ, %v\n", i-first+1, n, c.different, time.Since(start).Round(time.Second))
		}
	}
	fmt.Printf("oracle: Linux %s against uvs, SEED=%d: %d sequences, %d commands, %d packets (by outcome: %s), %d looks at counts and connections, in %v\n",
		c.kernel, c.seed, n, c.commands, c.packets, tally(c.decisions), c.looks, time.Since(start).Round(time.Second))
	fmt.Printf("oracle: %d of %d sequences differ\n", c.different, n)
	return nil
}

// sequence makes a sequence, runs it on the kernel and compares uvs.
func (c *comparison) sequence(index int) error {
	g := generate(c.seed, index)
	rec, err := c.begin(g.trace)
	if err != nil {
		return err
	}
	for range 60 + g.IntN(60) {
		s := g.next()
		if err := rec.run(s); err != nil {
			return err
		}
		g.observe(s)
		g.trace.Steps = append(g.trace.Steps, s)
	}
	for _, s := range []step{{"counts": 1}, {"conns": 1}} {
		if err := rec.run(s); err != nil {
			return err
		}
		g.trace.Steps = append(g.trace.Steps, s)
	}
	return c.compare(g.trace)
}

// again runs a sequence from a file.
func (c *comparison) again(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	t := new(trace)
	if err := json.Unmarshal(b, t); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	t.Name += "-again"
	rec, err := c.begin(t)
	if err != nil {
		return err
	}
	for i, s := range t.Steps {
		if err := rec.run(s); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	if err := c.compare(t); err != nil {
		return err
	}
	fmt.Printf("oracle: %s: %d steps, differs: %t\n", path, len(t.Steps), c.different > 0)
	return nil
}

// shut ends the machine, if one runs.
func (c *comparison) shut() {
	if c.m != nil {
		c.m.close()
		c.m = nil
	}
}

// begin has a machine ready for a sequence.
func (c *comparison) begin(t *trace) (*recorder, error) {
	if c.done >= c.perBoot {
		c.shut()
	}
	if c.m == nil {
		m, err := boot(c.tools)
		if err != nil {
			return nil, fmt.Errorf("boot: %w", err)
		}
		c.m, c.done = m, 0
		release, err := m.Read("/proc/sys/kernel/osrelease", "")
		if err != nil {
			return nil, err
		}
		c.kernel = strings.TrimSpace(release)
	}
	c.done++
	t.Kernel = c.kernel
	return c.m.record(t)
}

// compare replays on uvs what the kernel did. A sequence that differs is written to a file, and the differences are printed.
func (c *comparison) compare(t *trace) error {
	for _, s := range t.Steps {
		switch {
		case s["pkt"] != nil:
			c.packets++
			c.decisions[outcome(s)]++
		case s["ipvs"] != nil:
			c.commands++
		default:
			c.looks++
		}
	}
	b, err := t.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(c.dir, t.Name+".json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return err
	}
	read, err := conformance.ReadTrace(path)
	if err != nil {
		return err
	}
	list, err := conformance.Replay(read, nil)
	if err != nil {
		return fmt.Errorf("%s on uvs: %w", path, err)
	}
	if len(list) == 0 {
		return os.Remove(path)
	}
	c.different++
	fmt.Printf("oracle: %s differs (SEED=%d); to run it again: make oracle REPLAY=%s\n", t.Name, t.Seed, path)
	for _, d := range list {
		fmt.Printf("  step %d, %s\n    kernel %s\n    uvs    %s\n    step   %.400s\n", d.Step, d.Field, d.Want, d.Got, read.Steps[d.Step].Recording())
	}
	return nil
}

// outcome is the word for what became of a packet.
func outcome(s step) string {
	if how, ok := s["fwd"].(string); ok && how != "?" {
		return how
	}
	to, _ := s["to"].(string)
	switch {
	case s["fwd"] != nil:
		return "icmp to server"
	case strings.HasPrefix(to, "icmp"):
		return "icmp"
	}
	return to
}

func tally(m map[string]int) string {
	var parts []string
	for _, k := range []string{"dr", "nat", "tun", "client", "rst", "icmp", "icmp to server", "drop"} {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
	}
	return strings.Join(parts, ", ")
}
