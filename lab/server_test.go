package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// pair is a lab of two hosts on one cable, 10.0.0.1 and 10.0.0.2.
func pair(t *testing.T) (client, server *Namespace) {
	t.Helper()
	l := newLab(t, Options{})
	client, server = newNamespace(t, l, "client"), newNamespace(t, l, "server")
	must(t, l.AddVeth(End{Namespace: client, Name: "eth0"}, End{Namespace: server, Name: "eth0"}, 0))
	must(t, client.AddAddr("eth0", netip.MustParsePrefix("10.0.0.1/24")))
	must(t, server.AddAddr("eth0", netip.MustParsePrefix("10.0.0.2/24")))
	return client, server
}

var (
	web  = netip.MustParseAddrPort("10.0.0.2:80")
	web2 = netip.MustParseAddrPort("10.0.0.2:81")
)

func TestHTTPServerAnswers(t *testing.T) {
	client, server := pair(t)
	s, err := ServeHTTP(server, "web", web, web2)
	must(t, err)
	c := client.HTTPClient()
	for _, addr := range []netip.AddrPort{web, web2} {
		name, body, err := AskHTTP(shortly(t), c, "http://"+addr.String()+"/client")
		if err != nil || name != "web" || !strings.HasPrefix(string(body), "10.0.0.1:") {
			t.Errorf("GET /client from %v = %q, %q, %v", addr, name, body, err)
		}
	}
	if _, body, err := AskHTTP(shortly(t), c, "http://10.0.0.2/bytes?n=100000&seed=7"); err != nil ||
		sha256.Sum256(body) != ContentSHA256(7, 100000) || sha256.Sum256(body) == ContentSHA256(0, 100000) {
		t.Errorf("GET /bytes with a seed: %d bytes, %v", len(body), err)
	}
	for _, bad := range []string{"/nothing", "/bytes", "/bytes?n=-1", "/bytes?n=1&seed=x"} {
		if _, _, err := AskHTTP(shortly(t), c, "http://10.0.0.2"+bad); err == nil {
			t.Errorf("GET %s succeeded", bad)
		}
	}
	if got := s.Requests(); got != 7 {
		t.Errorf("Requests() = %d, want 7", got)
	}
	must(t, s.Close())
	must(t, s.Close())
	if _, _, err := AskHTTP(shortly(t), c, "http://10.0.0.2/"); err == nil {
		t.Error("the server answers after Close")
	}
	if _, err := ServeHTTP(server, "again", web); err != nil {
		t.Errorf("the address is not free after Close: %v", err)
	}
}

func TestShutdownLetsTheTransferFinish(t *testing.T) {
	client, server := pair(t)
	s, err := ServeHTTP(server, "web", web)
	must(t, err)
	resp, err := client.HTTPClient().Get("http://10.0.0.2/bytes?n=8000000") // more than the buffers between hold
	must(t, err)
	defer resp.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(shortly(t)) }()
	if n, err := io.Copy(io.Discard, resp.Body); n != 8000000 || err != nil {
		t.Errorf("a transfer during Shutdown ended after %d bytes: %v", n, err)
	}
	must(t, <-ended)
}

func TestTransfersAreChecked(t *testing.T) {
	client, server := pair(t)
	// A server that claims to be one of ours and garbles everything.
	ln, err := server.Listen("tcp", web.String())
	must(t, err)
	garble := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			fmt.Fprintf(w, "%x %d\n", ContentSHA256(1, n), n)
			return
		}
		io.CopyN(w, Content(1), 1000)
	})}
	go garble.Serve(ln)
	defer garble.Close()
	if _, err := Download(shortly(t), client.HTTPClient(), "http://10.0.0.2", 1000); err == nil {
		t.Error("Download accepted wrong content")
	}
	if _, err := Upload(shortly(t), client.HTTPClient(), "http://10.0.0.2", 1000); err == nil {
		t.Error("Upload accepted a wrong checksum")
	}
}

func TestCountsByServer(t *testing.T) {
	topo := DR(t, Config{})
	serve(t, topo)
	client := topo.Clients[0]
	// Routed by hand, half of the connections each, as a director would.
	total := Tally{}
	for i, rs := range topo.RealServers {
		tally, err := CountHTTP(shortly(t), client.HTTPClient(), "http://"+rs.Addr().String()+"/", 3+i)
		must(t, err)
		udp, err := CountUDP(shortly(t), client.Namespace, netip.AddrPortFrom(rs.Addr(), 53), 3+i)
		must(t, err)
		if tally.String() != udp.String() || tally.Total() != 3+i {
			t.Errorf("HTTP %v, UDP %v, want %d each", tally, udp, 3+i)
		}
		for name, n := range tally {
			total[name] += n
		}
	}
	if total.String() != "rs1=3 rs2=4" {
		t.Errorf("tally %v, want rs1=3 rs2=4", total)
	}
}

func TestUDPServerCutsWhatDoesNotFit(t *testing.T) {
	client, server := pair(t)
	s, err := ServeUDPEcho(server, "echo", web)
	must(t, err)
	payload := bytes.Repeat([]byte("0123456789"), 6551)[:maxUDPPayload]
	name, echo, err := AskUDP(shortly(t), client, web, payload)
	if err != nil || name != "echo" || !bytes.Equal(echo, payload[:maxUDPPayload-len("echo: ")]) {
		t.Errorf("echo of the longest datagram: %q, %d bytes, %v", name, len(echo), err)
	}
	if s.Datagrams() != 1 {
		t.Errorf("Datagrams() = %d, want 1", s.Datagrams())
	}
	must(t, s.Close())
	if _, _, err := AskUDP(shortly(t), client, web, payload[:10]); err == nil {
		t.Error("the server answers after Close")
	}
	if _, err := ServeUDPEcho(server, "echo", netip.MustParseAddrPort("0.0.0.0:53")); err == nil {
		t.Error("a wildcard address was accepted")
	}
}

func TestLoadCountsFailures(t *testing.T) {
	client, server := pair(t)
	s, err := ServeHTTP(server, "web", web)
	must(t, err)
	load := StartHTTPLoad(t.Context(), client.HTTPClient(), "http://10.0.0.2/", 2, time.Second)
	eventually(t, "ten requests were answered", func() bool { return load.Tally().Total() >= 10 })
	tally, failed := load.Stop()
	if tally["web"] < 10 || len(failed) > 0 {
		t.Errorf("load on a healthy server: %v, failed %v", tally, failed)
	}
	must(t, s.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	load = StartHTTPLoad(ctx, client.HTTPClient(), "http://10.0.0.2/", 1, time.Second)
	<-ctx.Done()
	if tally, failed := load.Stop(); tally.Total() != 0 || len(failed) == 0 {
		t.Errorf("load without a server: %v, %d failed", tally, len(failed))
	}
}

// A server in the process's own namespace is one with a nil Namespace.
func TestServersWorkOutsideTheLab(t *testing.T) {
	var none *Namespace
	s, err := ServeHTTP(none, "local", netip.MustParseAddrPort("127.0.0.1:0"))
	must(t, err)
	must(t, s.Close())
	u, err := ServeUDPEcho(none, "local", netip.MustParseAddrPort("127.0.0.1:0"))
	must(t, err)
	must(t, u.Close())
}

func BenchmarkContent(b *testing.B) {
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	r := Content(0)
	for b.Loop() {
		r.Read(buf)
	}
}
