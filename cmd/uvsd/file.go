package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"

	"uvs/config"
	"uvs/config/live"
	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
)

const defaultConfig = "/etc/uvs/uvs.yaml"

// load reads the configuration file and takes from it what the flags given don't say.
func (o *options) load(given map[string]bool) error {
	if o.config == "" {
		return nil
	}
	file, err := config.Load(o.config)
	if errors.Is(err, fs.ErrNotExist) && !given["config"] {
		return nil
	}
	if err != nil {
		return err
	}
	o.file = file
	return o.take(&file.Config, given)
}

// take takes what a file says of the process and the host. Its values have been checked.
func (o *options) take(c *config.Config, given map[string]bool) error {
	if !given["interface"] {
		for _, x := range c.Interfaces {
			o.interfaces = append(o.interfaces, x.Name)
		}
	}
	if !given["mac"] {
		o.macs = map[string]guard.Mode{}
		for _, x := range c.Interfaces {
			if x.MAC != "" {
				mode, err := guard.ParseMode(x.MAC)
				if err != nil {
					return err
				}
				o.macs[x.Name] = mode
			}
		}
	}
	if !given["gateway"] {
		for _, x := range c.Interfaces {
			for _, g := range x.Gateways {
				p, err := netip.ParsePrefix(g)
				if err != nil {
					return err
				}
				o.gateways = append(o.gateways, gateway{p, x.Name})
			}
		}
	}
	for _, x := range []struct {
		flag string
		from []string
		to   *[]netip.Addr
	}{{"probe-address", c.ProbeAddresses, &o.probes}, {"masquerade-address", c.InnerTraffic.Addresses, &o.masquerade}} {
		for _, text := range x.from {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return err
			}
			if !given[x.flag] {
				*x.to = append(*x.to, a)
			}
		}
	}
	inner := map[string]dataplane.InnerPolicy{
		"drop": dataplane.DropInnerTraffic, "forward": dataplane.ForwardInnerTraffic, "masquerade": dataplane.MasqueradeInnerTraffic,
	}
	if p, ok := inner[c.InnerTraffic.Policy]; ok && !given["inner-traffic"] {
		o.inner = p
	}
	p := &c.PacketPath
	if p.Link != "" && !given["link"] {
		kind, err := link.ParseKind(p.Link)
		if err != nil {
			return err
		}
		o.link = kind
	}
	if p.Workers != 0 && !given["workers"] {
		o.workers = p.Workers
	}
	if !given["pin"] {
		o.pin = p.Pin
	}
	if !given["busy-poll"] {
		o.busyPoll = p.BusyPoll
	}
	if p.AnnounceInterval != nil && !given["announce-interval"] {
		if o.announce = time.Duration(*p.AnnounceInterval); o.announce == 0 {
			o.announce = -1
		}
	}
	if !given["max-connections"] {
		o.maxConnections = c.Limits.Connections
	}
	if c.Log.Level != "" && !given["log-level"] {
		o.logLevel = c.Log.Level
	}
	return nil
}

// modeOf is whose MAC address an interface's virtual addresses have.
func (o *options) modeOf(name string) guard.Mode {
	if m, ok := o.macs[name]; ok {
		return m
	}
	return o.mac
}

// checkFile is uvsd --check: it says all that is wrong with a file.
func checkFile(name string, out io.Writer) error {
	file, err := config.Load(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	state, err := file.State(func(host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	})
	if err != nil {
		return err
	}
	servers := 0
	for _, v := range state.Services {
		servers += len(v.Servers)
	}
	fmt.Fprintf(out, "%s is sound: virtual services: %d, real servers: %d\n", name, len(state.Services), servers)
	return nil
}

// followFile makes what keeps the director in line with the configuration file.
func (d *daemon) followFile() {
	if d.o.file == nil {
		return
	}
	d.live = live.New(live.Config{Director: d.director, File: d.o.file, StateDir: d.o.stateDir, Log: d.log, LogLevel: d.o.setLevel})
	d.o.file = nil // it is live's
}

// follow reloads the configuration file when that is asked for, until ctx ends.
func (d *daemon) follow(ctx context.Context, hup <-chan os.Signal) error {
	if d.live != nil {
		return d.live.Run(ctx, hup)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			d.log.Warn("SIGHUP: uvsd was started without a configuration file", zap.String("config", d.o.config))
		}
	}
}

// changed is called when something that is configured has changed.
func (d *daemon) changed() {
	if d.live != nil {
		d.live.Changed()
	}
}

// reload and save are what the API does with the configuration file; nil without one.
func (d *daemon) reload() func(context.Context, *api.ReloadRequest) (*api.Reload, error) {
	if d.o.file == nil {
		return nil
	}
	return func(ctx context.Context, r *api.ReloadRequest) (*api.Reload, error) { return d.live.Reload(ctx, r) }
}

func (d *daemon) save() func(context.Context, *api.SaveRequest) (*api.Saved, error) {
	if d.o.file == nil {
		return nil
	}
	return func(ctx context.Context, r *api.SaveRequest) (*api.Saved, error) { return d.live.Save(ctx, r) }
}
