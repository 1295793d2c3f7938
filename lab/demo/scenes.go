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
	requests int
	down, up lab.Transfer
	echoed   int
	took     time.Duration
	absent   bool // not shown here
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
func setUp(ctx context.Context, s *stage, _ *result) error {
	heading(fmt.Sprintf("%s: %s", s.method.name, s.method.title))
	replace := []string{
		"{CIP}", s.topo.Clients[0].Addr().String(), "{DIP}", s.topo.Directors[0].Addr().String(),
		"{VIP}", s.topo.VIP().String(), "{GW}", s.topo.Gateway.String(),
	}
	for i := range weights {
		replace = append(replace, fmt.Sprintf("{RIP%d}", i+1), s.host(i+1).Addr().String())
	}
	fmt.Println(strings.NewReplacer(replace...).Replace(s.method.picture))
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
	commands := [][]string{{"-A", "-t", s.vip(webPort), "-s", "wrr"}}
	for i, w := range weights {
		commands = append(commands, []string{"-a", "-t", s.vip(webPort), "-r", s.rip(i+1, s.method.web, webPort), s.method.flag, "-w", strconv.Itoa(w)})
	}
	commands = append(commands, []string{"-A", "-u", s.vip(udpPort), "-s", "rr"})
	for i := range weights {
		commands = append(commands, []string{"-a", "-u", s.vip(udpPort), "-r", s.rip(i+1, s.method.udp, udpPort), s.method.flag})
	}
	for _, c := range commands {
		if err := s.run(ctx, c...); err != nil {
			return err
		}
	}
	return nil
}

// byWeight counts which real server answers how many requests.
func byWeight(ctx context.Context, s *stage, r *result) error {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := rounds * sum
	fmt.Printf("\n  %d requests by HTTP, each on a connection of its own, against the weights (wrr):\n\n", n)
	tally, err := lab.CountHTTP(ctx, s.topo.Clients[0].HTTPClient(), "http://"+s.vip(webPort)+"/", n)
	if err != nil {
		return err
	}
	r.requests += n
	t := newTable("Real server", "Address", "Weight", "Due", "Requests", "Share")
	var wrong []error
	for i, w := range weights {
		h, due := s.host(i+1), n*w/sum
		got := tally[h.Name()]
		t.row(h.Name(), netip.AddrPortFrom(h.Addr(), s.method.web), w, due, got, fmt.Sprintf("%.1f %%", 100*float64(got)/float64(n)))
		if got != due {
			wrong = append(wrong, fmt.Errorf("%s answered %d requests, by its weight %d were due", h.Name(), got, due))
		}
	}
	t.print()
	return errors.Join(wrong...)
}

// bulk moves a lot both ways and compares checksums.
func bulk(ctx context.Context, s *stage, r *result) (err error) {
	fmt.Printf("\n  %d MiB each way, the SHA-256 compared with the sender's:\n\n", bulkBytes>>20)
	client, base := s.topo.Clients[0].HTTPClient(), "http://"+s.vip(webPort)
	t := newTable("Direction", "Real server", "Took", "Rate", "SHA-256")
	if r.down, err = lab.Download(ctx, client, base, bulkBytes); err != nil {
		return err
	}
	transferRow(t, "download", r.down)
	if r.up, err = lab.Upload(ctx, client, base, bulkBytes); err != nil {
		return err
	}
	transferRow(t, "upload", r.up)
	t.print()
	r.requests += 2
	return nil
}

func transferRow(t *table, direction string, x lab.Transfer) {
	t.row(direction, x.Server, fmt.Sprintf("%.2f s", x.Took.Seconds()), rate(x), fmt.Sprintf("%x... same", x.SHA256[:8]))
}

// rate is how fast a transfer was.
func rate(x lab.Transfer) string {
	return fmt.Sprintf("%.0f MB/s", float64(x.Bytes)/1e6/x.Took.Seconds())
}

// echo sends datagrams.
func echo(ctx context.Context, s *stage, r *result) error {
	to := netip.AddrPortFrom(s.topo.VIP(), udpPort)
	tally, err := lab.CountUDP(ctx, s.topo.Clients[0].Namespace, to, datagrams)
	if err != nil {
		return err
	}
	r.echoed = tally.Total()
	fmt.Printf("\n  %d datagrams by UDP (rr), all echoed: %v\n", r.echoed, tally)
	return nil
}

// underLoad takes a real server out and puts another in while clients keep requesting.
func underLoad(ctx context.Context, s *stage, r *result) error {
	const out, in = 3, realServers
	service := []string{"-t", s.vip(webPort)}
	leaving := []string{"-r", s.rip(out, s.method.web, webPort)}
	coming := []string{"-r", s.rip(in, s.method.web, webPort)}
	command := func(letter string, parts ...[]string) error {
		args := []string{letter}
		for _, p := range append([][]string{service}, parts...) {
			args = append(args, p...)
		}
		return s.run(ctx, args...)
	}
	fmt.Print("\n  While clients keep requesting, one real server is taken out and another put in:\n\n")
	var load []*lab.HTTPLoad
	for _, c := range s.topo.Clients[:loadClients] {
		load = append(load, lab.StartHTTPLoad(ctx, paced(c.HTTPClient()), "http://"+s.vip(webPort)+"/", 1, 5*time.Second))
	}
	change := func() error {
		if err := pause(ctx, loadBefore); err != nil {
			return err
		}
		if err := command("-e", leaving, []string{s.method.flag, "-w", "0"}); err != nil { // gets no new connection
			return err
		}
		if err := s.drained(ctx, out); err != nil {
			return err
		}
		fmt.Printf("    %s has no connection left: its server is stopped\n", s.host(out).Name())
		if err := s.stopServer(out); err != nil {
			return err
		}
		if err := command("-d", leaving); err != nil {
			return err
		}
		fmt.Printf("    a server is started on %s\n", s.host(in).Name())
		if err := s.startServer(ctx, in); err != nil {
			return err
		}
		if err := command("-a", coming, []string{s.method.flag, "-w", strconv.Itoa(weights[out-1])}); err != nil {
			return err
		}
		return pause(ctx, loadAfter)
	}
	err := change()
	tally, failed := stopAll(load)
	r.requests += tally.Total()
	switch {
	case len(failed) > 0:
		return errors.Join(fmt.Errorf("%d of %d requests failed meanwhile; the first: %w", len(failed), tally.Total()+len(failed), failed[0]), err)
	case err != nil:
		return err
	case tally[s.host(in).Name()] == 0:
		return fmt.Errorf("%s was put in but answered nothing: %v", s.host(in).Name(), tally)
	}
	fmt.Printf("\n  %d requests meanwhile, 0 failed: %v\n", tally.Total(), tally)
	// The UDP service loses the server that stopped too.
	_, err = s.uvsadm(ctx, "-d", "-u", s.vip(udpPort), "-r", s.rip(out, s.method.udp, udpPort))
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
		active, err := s.active(ctx, number)
		if err != nil {
			return err
		}
		if quiet++; active > 0 {
			quiet = 0
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
