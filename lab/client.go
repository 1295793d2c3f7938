package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tally counts answers by the server's name.
type Tally map[string]int

// Total is the number of answers.
func (t Tally) Total() int {
	total := 0
	for _, n := range t {
		total += n
	}
	return total
}

// String lists the servers by name: "rs1=3 rs2=1".
func (t Tally) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		parts = append(parts, fmt.Sprintf("%s=%d", name, t[name]))
	}
	return strings.Join(parts, " ")
}

// AskHTTP gets url from an HTTPServer and returns the server's name and the body.
func AskHTTP(ctx context.Context, client *http.Client, url string) (server string, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return answeredBy(resp, body, err)
}

// answeredBy checks an answer for success.
func answeredBy(resp *http.Response, body []byte, err error) (string, []byte, error) {
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", resp.Request.Method, resp.Request.URL, resp.Status, bytes.TrimSpace(body))
	}
	return resp.Header.Get(ServerHeader), body, err
}

// CountHTTP gets url n times, one request after the other, each on a connection of its own if the client is one of
// Namespace.HTTPClient. It ends at the first error.
func CountHTTP(ctx context.Context, client *http.Client, url string, n int) (Tally, error) {
	tally := Tally{}
	for i := range n {
		server, _, err := AskHTTP(ctx, client, url)
		if err != nil {
			return tally, fmt.Errorf("request %d of %d: %w", i+1, n, err)
		}
		tally[server]++
	}
	return tally, nil
}

// Transfer is a checked download or upload.
type Transfer struct {
	Server string
	Bytes  int64
	SHA256 [sha256.Size]byte
	Took   time.Duration
}

// Download gets n bytes from the server at base ("http://10.9.0.100") and checks their number and SHA-256.
func Download(ctx context.Context, client *http.Client, base string, n int64) (Transfer, error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/bytes?n=%d", base, n), nil)
	if err != nil {
		return Transfer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Transfer{}, err
	}
	defer resp.Body.Close()
	h := sha256.New()
	got, err := io.Copy(h, resp.Body)
	server, _, err := answeredBy(resp, nil, err)
	t := Transfer{Server: server, Bytes: got, SHA256: [sha256.Size]byte(h.Sum(nil)), Took: time.Since(start)}
	if err != nil {
		return t, fmt.Errorf("download of %d bytes, after %d: %w", n, got, err)
	}
	if want := ContentSHA256(0, n); got != n || t.SHA256 != want {
		return t, fmt.Errorf("download from %s: got %d bytes with SHA-256 %x, want %d with %x", server, got, t.SHA256, n, want)
	}
	return t, nil
}

// Upload sends n bytes to the server at base and checks the number and SHA-256 that the server has got.
func Upload(ctx context.Context, client *http.Client, base string, n int64) (Transfer, error) {
	start := time.Now()
	h := sha256.New()
	content := io.TeeReader(io.LimitReader(Content(0), n), h)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/upload", content)
	if err != nil {
		return Transfer{}, err
	}
	req.ContentLength = n
	resp, err := client.Do(req)
	if err != nil {
		return Transfer{}, fmt.Errorf("upload of %d bytes: %w", n, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	server, body, err := answeredBy(resp, body, err)
	t := Transfer{Server: server, Bytes: n, SHA256: [sha256.Size]byte(h.Sum(nil)), Took: time.Since(start)}
	if err != nil {
		return t, fmt.Errorf("upload of %d bytes: %w", n, err)
	}
	if want := fmt.Sprintf("%x %d", t.SHA256, n); string(bytes.TrimSpace(body)) != want {
		return t, fmt.Errorf("upload to %s: the server has got %q, want %q", server, bytes.TrimSpace(body), want)
	}
	return t, nil
}

// AskUDP sends a datagram to a UDPServer from a new port and returns the server's name and the payload it echoed. It
// sends once and waits for the answer until ctx ends.
func AskUDP(ctx context.Context, ns *Namespace, to netip.AddrPort, payload []byte) (server string, echo []byte, err error) {
	conn, err := ns.DialContext(ctx, "udp", to.String())
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	return EchoUDP(ctx, conn, payload)
}

// EchoUDP is AskUDP on a connection that is there already, for several datagrams from one port.
func EchoUDP(ctx context.Context, conn net.Conn, payload []byte) (server string, echo []byte, err error) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(payload); err != nil {
		return "", nil, err
	}
	buf := make([]byte, maxUDPPayload)
	n, err := conn.Read(buf)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer to a datagram to %v: %w", conn.RemoteAddr(), ctx.Err())
		}
		return "", nil, err
	}
	name, echo, ok := bytes.Cut(buf[:n], []byte(": "))
	if !ok {
		return "", nil, fmt.Errorf("answer %.20q from %v is not a server's of this lab", buf[:n], conn.RemoteAddr())
	}
	return string(name), echo, nil
}

// CountUDP asks n times, each time from a new port, one after the other, and checks the echo. It ends at the first
// error.
func CountUDP(ctx context.Context, ns *Namespace, to netip.AddrPort, n int) (Tally, error) {
	tally := Tally{}
	for i := range n {
		payload := fmt.Appendf(nil, "datagram %d", i)
		server, echo, err := AskUDP(ctx, ns, to, payload)
		if err == nil && !bytes.Equal(echo, payload) {
			err = fmt.Errorf("%s echoed %q, want %q", server, echo, payload)
		}
		if err != nil {
			return tally, fmt.Errorf("datagram %d of %d: %w", i+1, n, err)
		}
		tally[server]++
	}
	return tally, nil
}

// HTTPLoad gets a URL again and again in the background, to show that nothing fails while something is changed.
type HTTPLoad struct {
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex // guards what follows
	tally  Tally
	failed []error
}

// StartHTTPLoad starts workers that each get url in a loop, each request with a timeout of its own, until Stop or the
// end of ctx.
func StartHTTPLoad(ctx context.Context, client *http.Client, url string, workers int, timeout time.Duration) *HTTPLoad {
	ctx, cancel := context.WithCancel(ctx)
	l := &HTTPLoad{cancel: cancel, tally: Tally{}}
	for range workers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.get(ctx, client, url, timeout)
			}
		})
	}
	return l
}

// get makes one request. Being stopped is no failure.
func (l *HTTPLoad) get(ctx context.Context, client *http.Client, url string, timeout time.Duration) {
	request, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	server, _, err := AskHTTP(request, client, url)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.tally[server]++
}

// Tally is the count of answers so far.
func (l *HTTPLoad) Tally() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.tally)
}

// Stop ends the load and returns the count of answers and the requests that failed.
func (l *HTTPLoad) Stop() (Tally, []error) {
	l.cancel()
	l.workers.Wait()
	return l.tally, l.failed
}
