package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uvs/config"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
)

// options are uvsd's command line.
type options struct {
	interfaces     []string
	link           link.Kind
	workers        int
	pin            bool
	busyPoll       bool
	mac            guard.Mode
	gateways       []gateway
	inner          dataplane.InnerPolicy
	masquerade     []netip.Addr
	probes         []netip.Addr
	socket         string
	stateDir       string
	table          string
	config         string
	checkFile      string
	macs           map[string]guard.Mode // of interfaces that have one of their own
	file           *config.File          // nil: there is none
	logLevel       string
	announce       time.Duration
	maxConnections int
	ignoreChecks   bool
	pprof          bool
	version        bool
	levelGiven     bool
	setLevel       func(level string) // of the log; nil: --log-level says which
}

// gateway is an address that uvsd owns as the gateway of a segment of real servers.
type gateway struct {
	prefix netip.Prefix
	iface  string
}

// parseOptions reads the command line; the usage goes to out when asked for.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("uvsd", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error is one line, main's
	fs.Usage = func() {}
	fs.Func("interface", "Ethernet `interfaces` to attach to, separated by commas; may be repeated", func(s string) error {
		for name := range strings.SplitSeq(s, ",") {
			if name = strings.TrimSpace(name); name == "" {
				return errors.New("empty interface name")
			}
			o.interfaces = append(o.interfaces, name)
		}
		return nil
	})
	fs.Func("link", "how frames are received and sent: auto, `ring` or simple (default auto)", func(s string) (err error) {
		o.link, err = link.ParseKind(s)
		return err
	})
	fs.IntVar(&o.workers, "workers", 1, "receiving threads; they share each interface's frames by flow")
	fs.BoolVar(&o.pin, "pin", false, "bind worker N to CPU N")
	fs.BoolVar(&o.busyPoll, "busy-poll", false, "look for frames without sleeping: each worker uses a whole CPU, which should be its own, and packets wait less for it")
	fs.Func("mac", "whose MAC address the virtual addresses have: auto, `virtual` (uvsd's own) or interface (default auto)", func(s string) (err error) {
		o.mac, err = guard.ParseMode(s)
		return err
	})
	fs.Func("gateway", "own `ADDRESS/PREFIX@INTERFACE` as the gateway of NAT's real servers there, of IPv4 or IPv6; may be repeated", func(s string) error {
		g, err := parseGateway(s)
		o.gateways = append(o.gateways, g)
		return err
	})
	fs.Func("inner-traffic", "what real servers send through the gateway on their own behalf: `drop`, forward or masquerade (default drop)", func(s string) error {
		switch s {
		case "drop":
			o.inner = dataplane.DropInnerTraffic
		case "forward":
			o.inner = dataplane.ForwardInnerTraffic
		case "masquerade":
			o.inner = dataplane.MasqueradeInnerTraffic
		default:
			return errors.New("must be drop, forward or masquerade")
		}
		return nil
	})
	fs.Func("masquerade-address", "source `address` of masqueraded traffic, owned by uvsd; may be repeated, one of IPv4 and one of IPv6 (default the lowest virtual address)", func(s string) error {
		a, err := netip.ParseAddr(s)
		o.masquerade = append(o.masquerade, a)
		return err
	})
	fs.Func("probe-address", "source `address` of probes through the virtual addresses (uvsadm doctor, health checks), a free one of a segment, owned by uvsd; may be repeated, for each segment and family", func(s string) error {
		a, err := netip.ParseAddr(s)
		o.probes = append(o.probes, a)
		return err
	})
	fs.StringVar(&o.socket, "socket", "/run/uvs/uvsd.sock", "`path` of the control socket")
	fs.StringVar(&o.stateDir, "state-dir", "/var/lib/uvs", "`directory` of what outlives the process: with state: persistent in the configuration file, changes made at run time")
	fs.StringVar(&o.table, "table", "/dev/shm/uvs", "reserved: `path` of the connection table that outlives the process")
	fs.StringVar(&o.config, "config", defaultConfig, "`path` of the configuration file, which is read if it is there; flags win over what it says; empty for none")
	fs.StringVar(&o.checkFile, "check", "", "say what is wrong with a configuration `file`, and exit: with 0 if nothing is")
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.DurationVar(&o.announce, "announce-interval", 30*time.Second, "time between announcements of each address, by gratuitous ARP or neighbour advertisement; negative for none but the first")
	fs.IntVar(&o.maxConnections, "max-connections", 0, "most connections held at once; 0 for what half of the machine's memory holds")
	fs.BoolVar(&o.ignoreChecks, "ignore-checks", false, "start although the host check found what breaks service")
	fs.BoolVar(&o.pprof, "pprof", false, "serve profiles of this process on the control socket, at /debug/pprof/: see docs/benchmarks.md")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "usage: uvsd --interface eth0[,eth1] [options]")
		fs.SetOutput(out)
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w; uvsd --help explains the flags", err)
	}
	if o.version || o.checkFile != "" {
		return o, o.check(fs.Args())
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.levelGiven = given["log-level"]
	if err := o.load(given); err != nil {
		return nil, err
	}
	return o, o.check(fs.Args())
}

func parseGateway(s string) (gateway, error) {
	prefix, iface, ok := strings.Cut(s, "@")
	if !ok || iface == "" {
		return gateway{}, errors.New("must be ADDRESS/PREFIX@INTERFACE, such as 10.0.0.1/24@eth1 or fd00:1::1/64@eth1")
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return gateway{}, err
	}
	return gateway{p, iface}, nil
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.version, o.checkFile != "":
		return nil
	case len(o.interfaces) == 0:
		return errors.New("--interface names no interface, and no configuration file does: say which one the virtual addresses are reached by, such as --interface eth0")
	case o.workers < 1 || o.workers > 256:
		return fmt.Errorf("--workers %d is not between 1 and 256", o.workers)
	case len(o.masquerade) > 0 && o.inner != dataplane.MasqueradeInnerTraffic:
		return errors.New("--masquerade-address goes with --inner-traffic masquerade")
	case o.inner != dataplane.DropInnerTraffic && len(o.gateways) == 0:
		return errors.New("--inner-traffic is about what comes through a --gateway, and there is none")
	case o.maxConnections < 0:
		return fmt.Errorf("--max-connections %d is negative", o.maxConnections)
	}
	families := make(map[int]bool)
	for _, a := range o.masquerade {
		switch {
		case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6():
			return fmt.Errorf("--masquerade-address %v is not an address that a host can have and others reach", a)
		case families[a.BitLen()]:
			return fmt.Errorf("--masquerade-address %v is the second of its family", a)
		}
		families[a.BitLen()] = true
	}
	for i, a := range o.probes {
		switch {
		case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6():
			return fmt.Errorf("--probe-address %v is not an address that a host can have and others reach", a)
		case slices.Contains(o.probes[:i], a):
			return fmt.Errorf("--probe-address names %v twice", a)
		}
	}
	seen := make(map[string]bool)
	for _, name := range o.interfaces {
		if seen[name] {
			return fmt.Errorf("--interface names %s twice", name)
		}
		seen[name] = true
	}
	for _, g := range o.gateways {
		if !seen[g.iface] {
			return fmt.Errorf("--gateway %v@%s: uvsd is not attached to %s; add it to --interface", g.prefix, g.iface, g.iface)
		}
		if g.prefix.Masked().Addr() == g.prefix.Addr() && g.prefix.Bits() < g.prefix.Addr().BitLen()-1 {
			return fmt.Errorf("--gateway %v@%s: that is the segment's own address, not a host's", g.prefix, g.iface)
		}
	}
	return nil
}
