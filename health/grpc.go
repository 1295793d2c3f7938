package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// GRPC is the kind "grpc": a server of gRPC must say by the protocol of gRPC health checking that it is SERVING
// (grpc.health.v1.Health/Check). It speaks HTTP/2 without TLS, unless tls is yes.
type GRPC struct {
	// Service is which of the server's services is asked about. Default: the server as a whole.
	Service string `json:"service,omitempty"`
	// Host is the authority that the request names, and the server's name for TLS. Default: the real server's address and port.
	Host string `json:"host,omitempty"`
	Secure

	request string // in its frame
}

// Kind implements Prober.
func (*GRPC) Kind() string { return "grpc" }

// Prepare implements Prober.
func (g *GRPC) Prepare() error {
	if len(g.Service) > 127 {
		return errors.New("service: at most 127 bytes are possible")
	}
	if strings.ContainsFunc(g.Host, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return fmt.Errorf("host: %q is no name", g.Host)
	}
	if g.starts() {
		return errors.New("tls: no or yes is expected")
	}
	// A message is preceded by a byte that says that it isn't compressed, and its length. HealthCheckRequest has one field, number
	// 1, a string.
	var message string
	if g.Service != "" {
		message = "\x0a" + string(rune(len(g.Service))) + g.Service
	}
	g.request = "\x00\x00\x00\x00" + string(rune(len(message))) + message
	return g.Secure.prepare(serverName(g.Host), "h2")
}

// grpcStatuses are what HealthCheckResponse may say.
var grpcStatuses = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const grpcMaxAnswer = 1024

// Probe implements Prober.
func (g *GRPC) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := g.open(t); err != nil {
		return "", err
	}
	scheme := "http"
	if g.Secure.TLS == "yes" {
		scheme = "https"
	}
	host := cmp.Or(g.Host, to.Server.String())
	req := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: scheme, Host: host, Path: "/grpc.health.v1.Health/Check"}, Host: host,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"uvs"}},
		Body:   io.NopCloser(strings.NewReader(g.request)), ContentLength: int64(len(g.request)),
	}).WithContext(ctx)
	resp, end, err := t.roundTrip2(req)
	if err != nil {
		return "", err
	}
	defer end()
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return "", fmt.Errorf("the answer isn't gRPC: status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, grpcMaxAnswer+1))
	if err != nil {
		return "", because("no answer", err)
	}
	if len(body) > grpcMaxAnswer {
		return "", errors.New("the answer is too long")
	}
	if s := cmp.Or(resp.Trailer.Get("Grpc-Status"), resp.Header.Get("Grpc-Status")); s != "0" {
		text := cmp.Or(resp.Trailer.Get("Grpc-Message"), resp.Header.Get("Grpc-Message"))
		return "", fmt.Errorf("gRPC status %s: %s", printable(cmp.Or(s, "none")), printable(text))
	}
	status, ok := parseGRPCHealth(body)
	if !ok {
		return "", errors.New("the answer isn't one of gRPC health checking")
	}
	name := strconv.Itoa(status)
	if status < len(grpcStatuses) {
		name = grpcStatuses[status]
	}
	if status != 1 {
		return "", errors.New(name)
	}
	return name, nil
}

// parseGRPCHealth reads a HealthCheckResponse in its frame: field 1, an enumeration, missing if it is 0.
func parseGRPCHealth(b []byte) (status int, ok bool) {
	if len(b) < 5 || b[0] != 0 || b[1] != 0 || b[2] != 0 || int(b[3])<<8|int(b[4]) != len(b)-5 {
		return 0, false
	}
	switch b = b[5:]; {
	case len(b) == 0:
		return 0, true
	case len(b) == 2 && b[0] == 0x08 && b[1] < 0x80:
		return int(b[1]), true
	}
	return 0, false
}
