package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
)

// ServerHeader is the HTTP header in which a lab's server tells its name with every answer.
const ServerHeader = "X-Real-Server"

// HTTPServer is an ordinary HTTP server with its name:
//
//	GET  /              its name and a newline
//	GET  /client        the client's address and port as the server sees them, and a newline
//	GET  /bytes?n=N     N bytes of Content(0), or of Content(S) with &seed=S
//	POST /upload        the SHA-256 of the body in hex, a space, its length, and a newline
type HTTPServer struct {
	name     string
	server   *http.Server
	forget   func() // takes it off the lab's list
	serving  sync.WaitGroup
	requests atomic.Int64
	once     sync.Once
	closeErr error
}

// ServeHTTP starts a server in a namespace that listens on the given addresses. It ends with Close or with the lab.
func ServeHTTP(ns *Namespace, name string, addrs ...netip.AddrPort) (*HTTPServer, error) {
	s := &HTTPServer{name: name, forget: func() {}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("GET /bytes", serveBytes)
	mux.HandleFunc("POST /upload", serveUpload)
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		w.Header().Set(ServerHeader, name)
		mux.ServeHTTP(w, r)
	})}
	listeners, err := listenAll(addrs, func(addr string) (net.Listener, error) { return ns.Listen("tcp", addr) })
	if err != nil {
		return nil, fmt.Errorf("HTTP server %s: %w", name, err)
	}
	for _, ln := range listeners {
		s.serving.Go(func() { s.server.Serve(ln) }) // always ends with an error: that it was closed
	}
	if ns != nil {
		if s.forget, err = ns.lab.own(s.Close); err != nil {
			s.forget = func() {}
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// listenAll opens a listener for every address, or none.
func listenAll[L io.Closer](addrs []netip.AddrPort, listen func(addr string) (L, error)) ([]L, error) {
	var open []L
	for _, addr := range addrs {
		l, err := listen(addr.String())
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return nil, err
		}
		open = append(open, l)
	}
	return open, nil
}

// Name is the server's name.
func (s *HTTPServer) Name() string { return s.name }

// Requests is the number of requests received so far.
func (s *HTTPServer) Requests() int64 { return s.requests.Load() }

// Close stops listening and cuts every connection. Closing twice is harmless.
func (s *HTTPServer) Close() error {
	return s.end(s.server.Close)
}

// Shutdown stops listening and lets the requests in progress finish, until ctx ends.
func (s *HTTPServer) Shutdown(ctx context.Context) error {
	return s.end(func() error { return errors.Join(s.server.Shutdown(ctx), s.server.Close()) })
}

func (s *HTTPServer) end(stop func() error) error {
	s.once.Do(func() {
		if err := stop(); err != nil {
			s.closeErr = fmt.Errorf("close HTTP server %s: %w", s.name, err)
		}
		s.serving.Wait()
		s.forget()
	})
	return s.closeErr
}

// serveBytes answers GET /bytes?n=N&seed=S.
func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n: a number of bytes is needed", http.StatusBadRequest)
		return
	}
	var seed uint64
	if s := r.FormValue("seed"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			http.Error(w, "seed: a number is needed", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyN(w, Content(seed), n) // fails when the client leaves, which is its own affair
}

// serveUpload answers POST /upload.
func serveUpload(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%x %d\n", h.Sum(nil), n)
}

// ServeHTTP starts an HTTP server on every real server, called like its host: on the host's own addresses and, but
// for NAT, on the VIPs.
func (t *Topology) ServeHTTP(port uint16) ([]*HTTPServer, error) {
	var servers []*HTTPServer
	for _, h := range t.RealServers {
		s, err := ServeHTTP(h.Namespace, h.Name(), t.serviceAddrs(h, port)...)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// serviceAddrs are the addresses at which a real server has to listen.
func (t *Topology) serviceAddrs(h *Host, port uint16) []netip.AddrPort {
	addrs := []netip.Addr{h.Addr()}
	if t.Config.IPv6 {
		addrs = append(addrs, h.Addr6())
	}
	if t.method != nat {
		addrs = append(append(addrs, t.VIPs...), t.VIPs6...)
	}
	var all []netip.AddrPort
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a, port))
	}
	return all
}
