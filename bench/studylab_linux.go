package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"uvs/bench/result"
	"uvs/bench/sim"
	"uvs/lab"
)

// StudyLab measures studies on a lab: real clients, a real uvsd with direct routing, real HTTP servers of limited speed.
type StudyLab struct {
	Programs string        // where uvsd and uvsadm are
	Time     time.Duration // of each measurement; a quarter more goes before it
}

// studyWait is when a client gives a transaction up.
const studyWait = 2 * time.Minute

// Check says what is in the way of Run: it is better known before a long simulation than after it.
func (b *StudyLab) Check(s *sim.Study, scenarios []string) error {
	if os.Geteuid() != 0 {
		return errors.New("--lab makes network namespaces and needs root")
	}
	for _, name := range []string{"uvsd", "uvsadm"} {
		if _, err := os.Stat(filepath.Join(b.Programs, name)); err != nil {
			return fmt.Errorf("--lab needs %s, --programs says where it is: %w", name, err)
		}
	}
	return s.CheckLive(scenarios)
}

// Run measures a study; see sim.Study.RunLive.
func (b *StudyLab) Run(ctx context.Context, s *sim.Study, opts sim.Options) (_ *result.File, err error) {
	if err := b.Check(s, opts.Scenarios); err != nil {
		return nil, err
	}
	servers := 0
	for i := range s.Scenarios {
		servers = max(servers, s.Scenarios[i].Size())
	}
	dir, err := os.MkdirTemp("", "uvsbench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	topo, err := lab.NewDR(lab.Config{RealServers: servers, Name: "study"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, topo.Close()) }()
	director := LoadLab{Programs: b.Programs, Method: "dr", Scheduler: "rr", Servers: servers}
	if err := director.direct(ctx, topo, dir); err != nil {
		return nil, err
	}
	f, err := s.RunLive(ctx, opts, func(ctx context.Context, l *sim.Live) (*sim.LiveResult, error) {
		return b.measure(ctx, topo, filepath.Join(dir, "uvsd.sock"), l)
	})
	if f != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("Each value is of %v, after a quarter of that to settle. Servers' processors are imagined: requests share time, not cycles.", b.Time))
	}
	return f, err
}

// measure has one scheduler's service asked by the clients of l.
func (b *StudyLab) measure(ctx context.Context, topo *lab.Topology, socket string, l *sim.Live) (_ *sim.LiveResult, err error) {
	vip := netip.AddrPortFrom(topo.VIP(), webPort)
	var servers []*workServer
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
	}()
	var rules strings.Builder
	flags := ""
	if len(l.Flags) > 0 {
		flags = " -b " + strings.Join(l.Flags, ",")
	}
	fmt.Fprintf(&rules, "-D -t %v\n-A -t %v -s %s%s\n", vip, vip, l.Scheduler, flags)
	for i, x := range l.Servers {
		rs := topo.RealServers[i]
		ln, err := rs.Listen("tcp", vip.String())
		if err != nil {
			return nil, err
		}
		servers = append(servers, newWorkServer(ln, x.Speed, x.Processors))
		fmt.Fprintf(&rules, "-a -t %v -r %v -g -w %d\n", vip, netip.AddrPortFrom(rs.Addr(), webPort), x.Weight)
	}
	c := exec.CommandContext(ctx, filepath.Join(b.Programs, "uvsadm"), "--socket", socket, "-R")
	c.Stdin = strings.NewReader(rules.String())
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("uvsadm -R: %w: %s", err, bytes.TrimSpace(out))
	}
	return b.ask(ctx, topo.Clients[0].Namespace, vip, l)
}

// ask is the clients: each has one transaction after the other, on a connection of its own.
func (b *StudyLab) ask(ctx context.Context, from *lab.Namespace, vip netip.AddrPort, l *sim.Live) (*sim.LiveResult, error) {
	settle := b.Time / 4
	begin := time.Now().Add(settle)
	end := begin.Add(b.Time)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return from.DialContext(ctx, network, address)
	}}}
	r := &sim.LiveResult{Time: b.Time}
	var mu sync.Mutex // guards r and first
	var first error   // a failure's cause
	var clients sync.WaitGroup
	for i := range l.Clients {
		clients.Go(func() {
			// They don't come all at once.
			for wait := settle / 2 * time.Duration(i) / time.Duration(l.Clients); sleep(ctx, wait) == nil; {
				demand, latency, think := l.Next()
				begun := time.Now()
				err := transact(ctx, client, fmt.Sprintf("http://%v/work?demand=%v&latency=%v", vip, demand, latency))
				now := time.Now()
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				switch {
				case now.Before(begin):
				case err != nil:
					r.Failures++
					first = errors.Join(first, err)
					think = max(think, 100*time.Millisecond)
				default:
					r.Responses = append(r.Responses, now.Sub(begun))
				}
				mu.Unlock()
				wait = think
			}
		})
	}
	clients.Wait()
	if len(r.Responses) == 0 {
		return nil, fmt.Errorf("no transaction ended within %v: %w", b.Time, errors.Join(first, context.Cause(ctx)))
	}
	return r, nil
}

// transact asks once.
func transact(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, studyWait)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(q)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}
