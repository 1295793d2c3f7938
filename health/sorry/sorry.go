// Package sorry is uvsd's own web server for virtual services that have no server left: one small page, status 503, on a
// loopback address, where the packet path sends the clients to.
package sorry

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Page is what clients get.
type Page struct {
	// Text is the body: HTML if it begins with "<", else text; "@FILE" reads it from a file, each time. "" is a default.
	Text string
	// RetryAfter is when clients may try again, in whole seconds; 0 says nothing.
	RetryAfter time.Duration
}

const (
	// maxPages are how many different pages there may be, each with a socket of its own.
	maxPages = 1024
	// maxConns are the clients served at once by one page; more wait in the socket's queue.
	maxConns = 512
	// inTime is how long a client may take for its request, and then for the answer.
	inTime  = 5 * time.Second
	maxBody = 64 << 10
)

const defaultText = "The service is not available at the moment. Please try again later."

// Server serves pages. Its methods may be called by many goroutines.
type Server struct {
	log *zap.Logger

	mu     sync.Mutex
	pages  map[key]*page // guarded by mu, as is closed
	closed bool
}

type key struct {
	page Page
	is4  bool
}

// page is one that is served.
type page struct {
	addr netip.AddrPort
	http *http.Server
	done chan struct{}
}

// New returns a Server without pages.
func New(log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	return &Server{log: log, pages: map[key]*page{}}
}

// Serve has a page served on the loopback address of IPv4 or IPv6, and returns where. The same page is served once, until
// Close.
func (s *Server) Serve(p Page, is4 bool) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{p, is4}
	if served := s.pages[k]; served != nil {
		return served.addr, nil
	}
	switch {
	case s.closed:
		return netip.AddrPort{}, net.ErrClosed
	case len(s.pages) >= maxPages:
		return netip.AddrPort{}, fmt.Errorf("there are %d different pages for virtual services without servers already", maxPages)
	}
	network, addr := "tcp4", "127.0.0.1:0"
	if !is4 {
		network, addr = "tcp6", "[::1]:0"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the built-in sorry server: %w", err)
	}
	served := &page{
		addr: l.Addr().(*net.TCPAddr).AddrPort(),
		http: &http.Server{
			Handler: p, ReadTimeout: inTime, WriteTimeout: inTime, MaxHeaderBytes: 16 << 10,
			BaseContext: func(net.Listener) context.Context { return context.Background() },
		},
		done: make(chan struct{}),
	}
	served.http.SetKeepAlivesEnabled(false)
	served.http.ErrorLog = zap.NewStdLog(zap.NewNop()) // what clients do wrong is no news
	go func() {
		defer close(served.done)
		_ = served.http.Serve(&limited{Listener: l, slots: make(chan struct{}, maxConns)})
	}()
	s.pages[k] = served
	return served.addr, nil
}

// Close ends all pages.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.pages {
		_ = p.http.Close()
		<-p.done
	}
	clear(s.pages)
	return nil
}

// ServeHTTP implements http.Handler.
func (p Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, kind := p.body()
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if seconds := int64((p.RetryAfter + time.Second - 1) / time.Second); seconds > 0 {
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(body) // nothing of it is sent for HEAD
}

// body is what is sent, and what kind of text it is.
func (p Page) body() (body []byte, kind string) {
	text := p.Text
	if file, is := strings.CutPrefix(text, "@"); is {
		text = read(file)
	}
	if text == "" {
		text = "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>503 Service Unavailable</title>\n<h1>Service Unavailable</h1>\n<p>" +
			html.EscapeString(defaultText) + "</p></html>\n"
	}
	body = []byte(text)
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return body, "text/html; charset=utf-8"
	}
	return body, "text/plain; charset=utf-8"
}

// read is a file's text, or none if there is none.
func read(file string) string {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBody))
	if err != nil {
		return ""
	}
	return string(text)
}

// limited is a listener that accepts no more while there are as many connections as slots.
type limited struct {
	net.Listener
	slots chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: c, slots: l.slots}, nil
}

// counted gives its slot back when it is closed.
type counted struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
