package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"uvs/lab"
)

// result is what a method's scenes showed, for the summary.
type result struct {
	method   method
	families []*figures
	took     time.Duration
	absent   bool // not shown here
}

// figures are what they showed in one family.
type figures struct {
	family
	requests int
	down, up lab.Transfer
	echoed   int
}

const (
	rounds     = 100 // of the weights: requests = rounds * sum of weights
	bulkBytes  = 64 << 20
	datagrams  = 200
	loadBefore = 300 * time.Millisecond // clients keep requesting for so long before and after the change
	loadAfter  = 500 * time.Millisecond
)

// weights of rs1, rs2, rs3.
var weights = []int{1, 2, 3}

// setUp starts the director and the servers and configures the virtual services.
func setUp(ctx context.Context, s *stage, r *result) error {
	for _, f := range s.families {
		r.families = append(r.families, &figures{family: f})
	}
	heading(fmt.Sprintf("%s: %s", s.method.name, s.method.title))
	replace := []string{
		"{CIP}", s.topo.Clients[0].Addr().String(), "{DIP}", s.topo.Directors[0].Addr().String(),
		"{VIP}", s.topo.VIP().String(), "{GW}", s.topo.Gateway.String(),
	}
	for i := range weights {
		replace = append(replace, fmt.Sprintf("{RIP%d}", i+1), s.host(i+1).Addr().String())
	}
	fmt.Println(strings.NewReplacer(replace...).Replace(s.method.picture))
	for _, f := range s.families[1:] {
		fmt.Printf("    and by %s: client1 %v, director1 %v, VIP %v, real servers %v, ...\n\n",
			f.name, f.addr(s.topo.Clients[0]), f.addr(s.topo.Directors[0]), f.vip, f.addr(s.host(1)))
	}
	for i := range weights {
		if err := s.startServer(ctx, i+1); err != nil {
			return err
		}
	}
	if s.method.tunnel {
		fmt.Println("  rs1, rs2, rs3 $ uvsdecap " + strings.Join(s.decapArgs(), " "))
	}
	args := s.method.uvsd(s.topo)
	fmt.Println("  $ uvsd " + strings.Join(args, " "))
	if err := s.startUVSD(ctx, args...); err != nil {
		return err
	}
	rules := s.rules()
	fmt.Printf("  $ uvsadm -R < rules, which are\n    %s\n", strings.Join(rules, "\n    "))
	_, err := s.uvsadmReading(ctx, strings.Join(rules, "\n")+"\n", "-R")
	return err
}

// rules are the commands that configure the virtual services, in both families.
func (s *stage) rules() (rules []string) {
	add := func(format string, args ...any) { rules = append(rules, fmt.Sprintf(format, args...)) }
	for _, f := range s.families {
		add("-A -t %s -s wrr", f.at(webPort))
		for i, w := range weights {
			add("-a -t %s -r %s %s -w %d", f.at(webPort), s.rip(f, i+1, s.method.web), s.method.flag, w)
		}
		add("-A -u %s -s rr", f.at(udpPort))
		for i := range weights {
			add("-a -u %s -r %s %s", f.at(udpPort), s.rip(f, i+1, s.method.udp), s.method.flag)
		}
	}
	return rules
}

// byWeight counts which real server answers how many requests.
func byWeight(ctx context.Context, s *stage, r *result) error {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := rounds * sum
	fmt.Printf("\n  %d requests by HTTP in each family, each on a connection of its own, against the weights (wrr):\n\n", n)
	t := newTable("Real server", "Address", "Weight", "Due", "Requests", "Share")
	var wrong []error
	for _, f := range r.families {
		tally, err := lab.CountHTTP(ctx, s.topo.Clients[0].HTTPClient(), "http://"+f.at(webPort)+"/", n)
		if err != nil {
			return err
		}
		f.requests += n
		for i, w := range weights {
			h, due := s.host(i+1), n*w/sum
			got := tally[h.Name()]
			t.row(h.Name(), s.rip(f.family, i+1, s.method.web), w, due, got, fmt.Sprintf("%.1f %%", 100*float64(got)/float64(n)))
			if got != due {
				wrong = append(wrong, fmt.Errorf("%s answered %d requests by %s, by its weight %d were due", h.Name(), got, f.name, due))
			}
		}
	}
	t.print()
	return errors.Join(wrong...)
}

// bulk moves a lot both ways and compares checksums.
func bulk(ctx context.Context, s *stage, r *result) (err error) {
	fmt.Printf("\n  %d MiB each way, the SHA-256 compared with the sender's:\n\n", bulkBytes>>20)
	client := s.topo.Clients[0].HTTPClient()
	t := newTable("Direction", "Family", "Real server", "Took", "Rate", "SHA-256")
	for _, f := range r.families {
		base := "http://" + f.at(webPort)
		if f.down, err = lab.Download(ctx, client, base, bulkBytes); err != nil {
			return err
		}
		transferRow(t, "download", f.name, f.down)
		if f.up, err = lab.Upload(ctx, client, base, bulkBytes); err != nil {
			return err
		}
		transferRow(t, "upload", f.name, f.up)
		f.requests += 2
	}
	t.print()
	return nil
}

func transferRow(t *table, direction, family string, x lab.Transfer) {
	t.row(direction, family, x.Server, fmt.Sprintf("%.2f s", x.Took.Seconds()), rate(x), fmt.Sprintf("%x... same", x.SHA256[:8]))
}

// rate is how fast a transfer was.
func rate(x lab.Transfer) string {
	return fmt.Sprintf("%.0f MB/s", float64(x.Bytes)/1e6/x.Took.Seconds())
}

// echo sends datagrams.
func echo(ctx context.Context, s *stage, r *result) error {
	fmt.Println()
	for _, f := range r.families {
		tally, err := lab.CountUDP(ctx, s.topo.Clients[0].Namespace, netip.AddrPortFrom(f.vip, udpPort), datagrams)
		if err != nil {
			return err
		}
		f.echoed = tally.Total()
		fmt.Printf("  %d datagrams by UDP over %s (rr), all echoed: %v\n", f.echoed, f.name, tally)
	}
	return nil
}

// underLoad takes a real server out and puts another in while clients keep requesting.
func underLoad(ctx context.Context, s *stage, r *result) error {
	const out, in = 3, realServers
	command := func(letter string, server int, options ...string) error { // in both families
		for _, f := range s.families {
			args := []string{letter, "-t", f.at(webPort), "-r", s.rip(f, server, s.method.web)}
			if err := s.run(ctx, append(args, options...)...); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Print("\n  While clients keep requesting, one real server is taken out and another put in:\n\n")
	load := make([][]*lab.HTTPLoad, len(r.families))
	for i, c := range s.topo.Clients[:loadClients] {
		i %= len(r.families)
		load[i] = append(load[i], lab.StartHTTPLoad(ctx, paced(c.HTTPClient()), "http://"+r.families[i].at(webPort)+"/", 1, 5*time.Second))
	}
	change := func() error {
		if err := pause(ctx, loadBefore); err != nil {
			return err
		}
		if err := command("-e", out, s.method.flag, "-w", "0"); err != nil { // gets no new connection
			return err
		}
		if err := s.drained(ctx, out); err != nil {
			return err
		}
		fmt.Printf("    %s has no connection left: its server is stopped\n", s.host(out).Name())
		if err := s.stopServer(out); err != nil {
			return err
		}
		if err := command("-d", out); err != nil {
			return err
		}
		fmt.Printf("    a server is started on %s\n", s.host(in).Name())
		if err := s.startServer(ctx, in); err != nil {
			return err
		}
		if err := command("-a", in, s.method.flag, "-w", strconv.Itoa(weights[out-1])); err != nil {
			return err
		}
		return pause(ctx, loadAfter)
	}
	err := change()
	fmt.Println()
	for i, f := range r.families {
		tally, failed := stopAll(load[i])
		f.requests += tally.Total()
		switch {
		case len(failed) > 0:
			err = errors.Join(err, fmt.Errorf("%d of %d requests by %s failed meanwhile; the first: %w", len(failed), tally.Total()+len(failed), f.name, failed[0]))
		case err == nil && tally[s.host(in).Name()] == 0:
			err = fmt.Errorf("%s was put in but answered nothing by %s: %v", s.host(in).Name(), f.name, tally)
		case err == nil:
			fmt.Printf("  %d requests meanwhile by %s, 0 failed: %v\n", tally.Total(), f.name, tally)
		}
	}
	// The UDP service loses the server that stopped too.
	for _, f := range s.families {
		if err == nil {
			_, err = s.uvsadm(ctx, "-d", "-u", f.at(udpPort), "-r", s.rip(f, out, s.method.udp))
		}
	}
	return err
}

// paced makes a client wait a little before each request. A client that hammers uses a port again while the director
// still knows its last connection from there, which, as in the kernel, then stays at its server, even one that is leaving.
func paced(c *http.Client) *http.Client {
	return &http.Client{Transport: pacer{c.Transport}}
}

type pacer struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p pacer) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := pause(r.Context(), time.Millisecond); err != nil {
		return nil, err
	}
	return p.RoundTripper.RoundTrip(r)
}

// stopAll ends the loads and adds up what they saw.
func stopAll(loads []*lab.HTTPLoad) (lab.Tally, []error) {
	all, failures := lab.Tally{}, []error(nil)
	for _, l := range loads {
		tally, failed := l.Stop()
		for name, n := range tally {
			all[name] += n
		}
		failures = append(failures, failed...)
	}
	return all, failures
}

// drained waits until a real server has no connection left that is at work.
func (s *stage) drained(ctx context.Context, number int) error {
	for quiet := 0; quiet < 3; { // a handshake isn't counted as active before its end, so look more than once
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		quiet++
		for _, f := range s.families {
			active, err := s.active(ctx, f, number)
			if err != nil {
				return err
			}
			if active > 0 {
				quiet = 0
			}
		}
	}
	return nil
}

// listing shows the table as it is in the end.
func listing(ctx context.Context, s *stage, _ *result) error {
	fmt.Println("\n  $ uvsadm -L -n")
	out, err := s.uvsadm(ctx, "-L", "-n")
	for line := range strings.Lines(out) {
		fmt.Print("  " + line)
	}
	return err
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
