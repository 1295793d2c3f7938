package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"uvs/dataplane/decap"
)

// options are uvsdecap's command line.
type options struct {
	decap    decap.Config
	logLevel string
	version  bool
}

// parseOptions reads the command line; usage goes to out when asked for or when the line is wrong.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{decap: decap.Config{GUEPort: decap.DefaultGUEPort}}
	fs := flag.NewFlagSet("uvsdecap", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintln(out, "usage: uvsdecap --director 10.0.0.1[,...] --vip 192.0.2.100[,...] [options]")
		fs.PrintDefaults()
		fmt.Fprintln(out, "\nSIGUSR1 logs the counts of packets by what became of them; SIGTERM stops and undoes everything.")
	}
	fs.Func("director", "`addresses` or prefixes that tunnelled packets may come from, separated by commas; may be repeated", func(s string) error {
		return each(s, func(s string) error {
			p, err := parsePrefix(s)
			o.decap.Directors = append(o.decap.Directors, p)
			return err
		})
	})
	fs.Func("vip", "virtual `addresses` of this server, separated by commas; may be repeated", func(s string) error {
		return each(s, func(s string) error {
			p, err := parsePrefix(s)
			if err == nil && p.Bits() != p.Addr().BitLen() {
				return fmt.Errorf("%s: an address is wanted, not a network", s)
			}
			o.decap.VIPs = append(o.decap.VIPs, p.Addr())
			return err
		})
	})
	fs.StringVar(&o.decap.Device, "tun", decap.DefaultDevice, "`name` of the TUN device that holds the virtual addresses")
	fs.StringVar(&o.decap.Interface, "interface", "", "the only `interface` that tunnelled packets may come in by (default any)")
	fs.Func("gue-port", fmt.Sprintf("UDP `port` that GUE comes to, 0 for none (default %d)", decap.DefaultGUEPort), func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		o.decap.GUEPort = uint16(n)
		return err
	})
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return o, o.check(fs.Args())
}

// each calls f for the elements of a comma-separated list.
func each(list string, f func(string) error) error {
	for s := range strings.SplitSeq(list, ",") {
		if err := f(strings.TrimSpace(s)); err != nil {
			return err
		}
	}
	return nil
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

func (o *options) check(rest []string) error {
	switch {
	case o.version:
		return nil
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case len(o.decap.Directors) == 0:
		return errors.New("--director names nobody: say where tunnelled packets may come from, such as --director 10.0.0.1")
	case len(o.decap.VIPs) == 0:
		return errors.New("--vip names no virtual address: say which ones this server serves, such as --vip 192.0.2.100")
	}
	return nil
}
