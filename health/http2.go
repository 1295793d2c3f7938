package health

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
)

// transport2 speaks HTTP/2 from the first byte over whatever connection the request's context has: TLS, if any, is under it
// already. What it holds for a server that sends more than is read stays small.
var transport2 = func() *http.Transport {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:              &protocols,
		MaxResponseHeaderBytes: headBytes,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10, MaxReadFrameSize: 16 << 10},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(talkKey{}).(net.Conn), nil
		},
	}
}()

// talkKey is the context's key for the connection that transport2 takes.
type talkKey struct{}

// recorded is a talk's connection as a net.Conn for a library: what it reads is counted and recorded.
type recorded struct {
	net.Conn
	t *talk
}

// Read implements io.Reader.
func (c recorded) Read(b []byte) (int, error) { return c.t.Read(b) }

// Write implements io.Writer.
func (c recorded) Write(b []byte) (int, error) { return c.t.Write(b) }

// Close implements io.Closer, without TLS' farewell, as talk.close does.
func (c recorded) Close() error { return c.t.raw.Close() }

// roundTrip2 sends a request by HTTP/2. Whoever has read the answer's body calls end.
func (t *talk) roundTrip2(req *http.Request) (resp *http.Response, end func(), err error) {
	if s, ok := t.conn.(*tls.Conn); ok && s.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, nil, errors.New("the server doesn't speak HTTP/2")
	}
	conn, err := transport2.NewClientConn(context.WithValue(t.ctx, talkKey{}, net.Conn(recorded{t.conn, t})), "http", "server:0")
	if err != nil {
		return nil, nil, because("HTTP/2", err)
	}
	resp, err = conn.RoundTrip(req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, because("no answer", err)
	}
	return resp, func() { _ = conn.Close() }, nil
}
