package e2e

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// A quiesced server keeps its connections and gets no new ones.
func TestWeightZeroQuiesces(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		all, tally := r.holdMany(4)
		if tally["rs1"] != 2 || tally["rs2"] != 2 {
			t.Fatalf("4 connections went to %v", tally)
		}
		r.weigh([]int{0})
		if got := r.count(6); got["rs1"] != 0 {
			t.Errorf("with rs1 quiesced 6 requests went to %v", got)
		}
		for _, h := range all {
			if _, err := h.ask(r); err != nil {
				t.Error(err)
			}
		}
		r.weigh([]int{1})
		if got := r.count(6); got["rs1"] != 3 {
			t.Errorf("with rs1 back 6 requests went to %v", got)
		}
	})
}

// As in the kernel: what belongs to a deleted server's connections is dropped in silence, others are untouched, and a
// server that is added again has its connections again.
func TestDeletedServersConnectionsWaitForIt(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		all, _ := r.holdMany(2)
		slices.SortFunc(all, func(a, b *held) int { return strings.Compare(a.server, b.server) })
		one, two := all[0], all[1]
		r.adm("-d", "-t", r.webService(), "-r", r.webServer(1))
		if got := r.count(6); got["rs2"] != 6 {
			t.Errorf("without rs1 6 requests went to %v", got)
		}
		if _, err := two.ask(r); err != nil {
			t.Error(err)
		}
		if _, ok := r.list("-t", r.webService())[r.webServer(1)]; ok {
			t.Errorf("the deleted server is listed:\n%s", r.adm("-L", "-n"))
		}
		// A request on rs1's connection hangs until the server is there again; then TCP repeats what was lost.
		stop := r.captureDirector()
		answered := make(chan error, 1)
		go func() {
			_, err := one.ask(r)
			answered <- err
		}()
		select {
		case err := <-answered:
			t.Fatalf("a request on a deleted server's connection ended with %v, want silence", err)
		case <-time.After(300 * time.Millisecond):
		}
		r.adm("-a", "-t", r.webService(), "-r", r.webServer(1), r.method())
		if err := <-answered; err != nil {
			t.Errorf("after the server was added again: %v", err)
		}
		for _, w := range slices.Concat(stop()...) {
			if w.flags&tcpRST != 0 && w.proto == protoTCP || w.isICMP() {
				t.Errorf("not silent: %v", w)
			}
		}
		if n := r.status().drops("server-removed"); n == 0 {
			t.Errorf("no drop is counted as server-removed: %+v", r.status().Drops)
		}
	})
}

// When a service goes, so does its address if no other has it; connections of other services don't care.
func TestDeletedServiceGivesItsAddressBack(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.VIPs = 2
		r := newRig(t, cfg)
		other := r.vips()[1]
		r.restore(r.rules(other, "rr")...)
		h := r.hold(r.Clients[0])
		r.adm("-D", "-u", netip.AddrPortFrom(other, 53).String())
		if _, _, err := lab.AskHTTP(shortly(t), r.client(), urlOf(other)+"/"); err != nil {
			t.Errorf("the TCP service after the UDP service of its address went: %v", err)
		}
		r.adm("-D", "-t", netip.AddrPortFrom(other, 80).String())
		if macs := whoHas(t, r.Clients[0], other); len(macs) > 0 {
			t.Errorf("%v still answer for %v", macs, other)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if name, _, err := lab.AskHTTP(ctx, r.client(), urlOf(other)+"/"); err == nil {
			t.Errorf("%s answers for the deleted service", name)
		}
		if _, err := h.ask(r); err != nil {
			t.Error(err)
		}
		r.adm("-C")
		if out := r.adm("-S", "-n"); out != "" {
			t.Errorf("after -C there is %q", out)
		}
		r.restore(r.rules(r.VIP(), "rr")...)
		if _, err := h.ask(r); err != nil {
			t.Errorf("after -C and the same rules again: %v", err)
		}
		r.count(2)
	})
}

// What -S prints, -R makes again, and it works as before.
func TestSaveAndRestore(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers, cfg.VIPs, cfg.Scheduler = 3, 3, "wrr"
		r := newRig(t, cfg)
		r.weigh([]int{1, 2, 3})
		r.restore(r.rules(r.vips()[1], "sh")...)
		third, mask := netip.AddrPortFrom(r.vips()[2], 443).String(), "255.255.255.0"
		if cfg.Six {
			mask = "56"
		}
		r.adm("-A", "-t", third, "-s", "lblcr", "-p", "77", "-M", mask)
		r.adm("-a", "-t", third, "-r", netip.AddrPortFrom(r.addr(r.RealServers[0]), 443).String(), r.method(), "-x", "100", "-y", "50", "-w", "9")
		saved := r.adm("-S", "-n")
		listed := r.adm("-L", "-n")
		r.adm("-C")
		if _, err := r.tryAdm(saved, "-R"); err != nil {
			t.Fatal(err)
		}
		if again := r.adm("-S", "-n"); again != saved {
			t.Errorf("saved, restored and saved again:\n%s\nwas\n%s", again, saved)
		}
		if again := r.adm("-L", "-n"); again != listed {
			t.Errorf("listed after the restoration:\n%s\nwas\n%s", again, listed)
		}
		if got, want := r.count(12), (lab.Tally{"rs1": 2, "rs2": 4, "rs3": 6}); got.String() != want.String() {
			t.Errorf("12 requests went to %v, want %v", got, want)
		}
		r.echo(100)
	})
}

// Two programs of one name: ipvsadm speaks the same language on the same socket.
func TestIPVSADMName(t *testing.T) {
	r := newRig(t, rigConfig{})
	path := socketDir(t) + "/ipvsadm"
	must(t, os.Symlink(program("uvsadm"), path))
	cmd := r.Directors[0].Command(shortly(t), path, "-L", "-n")
	cmd.Env = append(os.Environ(), "UVS_SOCKET="+r.socket)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != r.adm("-L", "-n") {
		t.Errorf("ipvsadm -L -n: %v\n%s\nwant\n%s", err, out, r.adm("-L", "-n"))
	}
}

// While everything about a service that may change without harm changes again and again, no request fails.
func TestChangesUnderLoadCostNoRequest(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers, cfg.VIPs, cfg.Race, cfg.Scheduler = 4, 3, true, "wrr"
		cfg.Args = []string{"--workers", "2"}
		r := newRig(t, cfg)
		r.weigh([]int{1, 1, 1, 0}) // rs4 has no connection: it may come and go
		short := lab.StartHTTPLoad(t.Context(), r.client(), r.url()+"/", 3, 5*time.Second)
		long := lab.StartHTTPLoad(t.Context(), r.hold(r.Clients[0]).client, r.url()+"/", 1, 5*time.Second)
		bulk := make(chan error, 1)
		go func() {
			_, err := lab.Download(within(t, 30*time.Second), r.client(), r.url(), 32<<20)
			if err == nil {
				_, err = lab.Upload(within(t, 30*time.Second), r.client(), r.url(), 32<<20)
			}
			bulk <- err
		}()
		end := time.Now().Add(1500 * time.Millisecond)
		rounds := 0
		for ; rounds < 3 || time.Now().Before(end); rounds++ {
			for i, vip := range r.vips()[1:] { // others' addresses come and go
				r.restore(r.rules(vip, []string{"rr", "sh"}[i])...)
			}
			r.weigh([]int{1 + rounds%3, 2, 1 + rounds%2})
			r.adm("-E", "-t", r.webService(), "-s", []string{"wlc", "rr", "sed", "wrr"}[rounds%4])
			r.adm("-d", "-t", r.webService(), "-r", r.webServer(4))
			r.adm("-a", "-t", r.webService(), "-r", r.webServer(4), r.method(), "-w", "0")
			r.adm("-Z")
			r.adm("--set", "900", "120", "300")
			for _, vip := range r.vips()[1:] {
				r.adm("-D", "-t", netip.AddrPortFrom(vip, 80).String())
				r.adm("-D", "-u", netip.AddrPortFrom(vip, 53).String())
			}
		}
		tally, failed := short.Stop()
		_, failedLong := long.Stop()
		if failed = append(failed, failedLong...); len(failed) > 0 {
			t.Errorf("%d requests failed, %d did not, in %d rounds of changes; the first: %v", len(failed), tally.Total(), rounds, failed[0])
		}
		if err := <-bulk; err != nil {
			t.Error(err)
		}
		if tally.Total() < 50 {
			t.Errorf("only %d requests in %d rounds of changes", tally.Total(), rounds)
		}
		t.Logf("%d requests in %d rounds of changes: %v", tally.Total(), rounds, tally)
	})
}

// Wrong commands change nothing and say so in a line.
func TestWrongCommandsAreRefusedInALine(t *testing.T) {
	r := newRig(t, rigConfig{})
	before := r.adm("-S", "-n")
	for _, c := range [][]string{
		{"-A", "-t", r.webService()}, // exists
		{"-a", "-t", r.webService(), "-r", r.webServer(1), "-g"},
		{"-d", "-t", r.webService(), "-r", "10.9.0.99"},
		{"-D", "-t", "10.9.0.77:80"},
		{"-A", "-t", "10.9.0.77:80", "-s", "nonsense"},
		{"-A", "-t", "10.9.0.77:99999"},
		{"-a", "-t", r.webService(), "-r", "10.9.0.99", "-w", "-1"},
		{"nonsense"},
	} {
		out, err := r.tryAdm("", c...)
		if err == nil {
			t.Errorf("uvsadm %v succeeded", c)
			continue
		}
		message := err.Error()[strings.LastIndex(err.Error(), "exit status"):]
		if strings.TrimSpace(out) != "" || strings.Contains(message, "\n") || len(message) < len("exit status 2: x") {
			t.Errorf("uvsadm %v says %q and prints %q, want a line", c, message, out)
		}
	}
	if after := r.adm("-S", "-n"); after != before {
		t.Errorf("refused commands changed the table:\n%s\nwas\n%s", after, before)
	}
	// A set of rules with a wrong one leaves what came before it, as ipvsadm does.
	if _, err := r.tryAdm("-A -t 10.9.0.77:80\n-A -t 10.9.0.77:80\n", "-R"); err == nil {
		t.Error("-R with a service twice succeeded")
	}
	r.count(2)
}
