package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// DefaultSocket is where uvsd listens and its clients look, if nothing else is said.
const DefaultSocket = "/run/uvs/uvsd.sock"

// Client asks a uvsd over its socket. It offers the methods of [Backend], with the same meaning, so that whatever works
// on a backend works at a distance too. Refusals come back with their codes: errors.Is(err, ServiceNotFound) holds.
// A Client may be used by several goroutines.
type Client struct {
	socket string
	http   *http.Client
}

var _ Backend = (*Client)(nil)

// NewClient returns a client of the uvsd that listens on the Unix socket with that path. It connects when first used.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", socket)
			if err != nil && ctx.Err() == nil {
				err = &UnreachableError{Socket: socket, Err: err}
			}
			return conn, err
		},
		DisableCompression: true,
	}}
	return c
}

// Close drops the connections that are kept for further requests.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// UnreachableError says that nobody answers at a socket.
type UnreachableError struct {
	Socket string
	Err    error
}

// Error gives one line that names the socket, the reason and what to do.
func (e *UnreachableError) Error() string {
	reason, hint := e.Err, "is uvsd running? --socket names another"
	if errno := syscall.Errno(0); errors.As(e.Err, &errno) {
		reason = errno
		if errno == syscall.EACCES || errno == syscall.EPERM {
			hint = "root and members of the group uvs may use it"
		}
	}
	return fmt.Sprintf("cannot reach uvsd at %s: %v (%s)", e.Socket, reason, hint)
}

// Unwrap returns the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// do sends a request and hands back an answer with status 200, or 409 where also is set. Any other answer is an error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte, also int) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "uvsd", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.fault(err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == also {
		return resp, nil
	}
	defer resp.Body.Close()
	var refused errorReply
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&refused); err != nil || refused.Error == nil {
		return nil, fmt.Errorf("uvsd at %s answers %s %s with %s and nothing else", c.socket, method, path, resp.Status)
	}
	return nil, refused.Error
}

// fault turns a transport's error into one line without URLs, which mean nothing on a Unix socket.
func (c *Client) fault(err error) error {
	if e := (*UnreachableError)(nil); errors.As(err, &e) {
		return e
	}
	if e := (*url.Error)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("no answer from uvsd at %s: %w", c.socket, err)
}

// call fills reply from the answer's body.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body []byte, also int, reply any) error {
	resp, err := c.do(ctx, method, path, query, body, also)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(reply); err != nil {
		return fmt.Errorf("uvsd at %s: the answer to %s cannot be read: %w", c.socket, path, err)
	}
	return nil
}

// Change sends the operations as one change. A nil error means that uvsd dealt with it: reply.Err tells whether all of
// it was applied.
func (c *Client) Change(ctx context.Context, req *ChangeRequest) (*ChangeReply, error) {
	send := *req
	if send.Ops == nil {
		send.Ops = []Op{}
	}
	body, err := json.Marshal(&send)
	if err != nil {
		return nil, err
	}
	var reply ChangeReply
	if err := c.call(ctx, http.MethodPost, "/v1/change", nil, body, http.StatusConflict, &reply); err != nil {
		return nil, err
	}
	if len(reply.Results) != len(req.Ops) {
		return nil, fmt.Errorf("uvsd at %s: %d results for %d operations", c.socket, len(reply.Results), len(req.Ops))
	}
	return &reply, nil
}

// Services returns all services, or the one with that key.
func (c *Client) Services(ctx context.Context, key *ServiceKey) ([]Service, error) {
	var query url.Values
	if key != nil {
		query = key.query()
	}
	var reply ServicesReply
	err := c.call(ctx, http.MethodGet, "/v1/services", query, nil, 0, &reply)
	return reply.Services, err
}

// Connections calls yield for each connection as it arrives, none of which is kept. It stops when yield fails and
// returns that error. An error from uvsd may come after some connections: the list was not whole then.
func (c *Client) Connections(ctx context.Context, filter ConnectionFilter, yield func(*Connection) error) error {
	var query url.Values
	if filter.Service != nil {
		query = filter.Service.query()
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/connections", query, nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(bufio.NewReaderSize(resp.Body, piece))
	for {
		var line struct {
			Connection
			Error *Error `json:"error"`
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("uvsd at %s: the list of connections breaks off: %w", c.socket, err)
		case line.Error != nil:
			return line.Error
		}
		if err := yield(&line.Connection); err != nil {
			return err
		}
	}
}

// Timeouts returns the timeouts that can be set.
func (c *Client) Timeouts(ctx context.Context) (t Timeouts, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/timeouts", nil, nil, 0, &t)
	return t, err
}

// Daemons returns the running sync daemons.
func (c *Client) Daemons(ctx context.Context) ([]Daemon, error) {
	var reply DaemonsReply
	err := c.call(ctx, http.MethodGet, "/v1/daemons", nil, nil, 0, &reply)
	return reply.Daemons, err
}

// Marks returns the mark rules.
func (c *Client) Marks(ctx context.Context) ([]MarkRule, error) {
	var reply MarksReply
	err := c.call(ctx, http.MethodGet, "/v1/marks", nil, nil, 0, &reply)
	return reply.Rules, err
}

// Settings returns settings by name, or all.
func (c *Client) Settings(ctx context.Context, names []string) ([]Setting, error) {
	var reply SettingsReply
	err := c.call(ctx, http.MethodGet, "/v1/sysctl", url.Values{"name": names}, nil, 0, &reply)
	return reply.Settings, err
}

// Set changes settings, all or none.
func (c *Client) Set(ctx context.Context, settings []Setting) ([]Setting, error) {
	body, err := json.Marshal(&SettingsRequest{settings})
	if err != nil {
		return nil, err
	}
	var reply SettingsReply
	err = c.call(ctx, http.MethodPost, "/v1/sysctl", nil, body, 0, &reply)
	return reply.Settings, err
}

// Explain says what would become of a packet.
func (c *Client) Explain(ctx context.Context, req *ExplainRequest) (*Explanation, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var x Explanation
	if err := c.call(ctx, http.MethodPost, "/v1/explain", nil, body, 0, &x); err != nil {
		return nil, err
	}
	return &x, nil
}

// Drain drains a real server; see [DrainRequest].
func (c *Client) Drain(ctx context.Context, req *DrainRequest) ([]Drain, error) {
	return c.drains(ctx, http.MethodPost, "/v1/drain", req)
}

// Drains returns the servers that are being drained.
func (c *Client) Drains(ctx context.Context) ([]Drain, error) {
	return c.drains(ctx, http.MethodGet, "/v1/drain", nil)
}

// Undrain gives servers that are being drained their weights back.
func (c *Client) Undrain(ctx context.Context, req *UndrainRequest) ([]Drain, error) {
	return c.drains(ctx, http.MethodPost, "/v1/undrain", req)
}

func (c *Client) drains(ctx context.Context, method, path string, req any) ([]Drain, error) {
	var body []byte
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return nil, err
		}
	}
	var reply DrainsReply
	err := c.call(ctx, method, path, nil, body, 0, &reply)
	return reply.Drains, err
}

// Reload has the configuration file read again; see [ReloadRequest]. With a nil error the reply's Errors say what is wrong with
// the file.
func (c *Client) Reload(ctx context.Context, req *ReloadRequest) (*Reload, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var reply Reload
	if err := c.call(ctx, http.MethodPost, "/v1/reload", nil, body, http.StatusConflict, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// Save has the configuration file say what the director has; see [SaveRequest].
func (c *Client) Save(ctx context.Context, req *SaveRequest) (*Saved, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var reply Saved
	if err := c.call(ctx, http.MethodPost, "/v1/save", nil, body, 0, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// Shadow begins and ends trials of schedulers; see [ShadowRequest].
func (c *Client) Shadow(ctx context.Context, req *ShadowRequest) (*ShadowsReply, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var reply ShadowsReply
	if err := c.call(ctx, http.MethodPost, "/v1/shadows", nil, body, 0, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// Shadows returns the trials of all services, or of one.
func (c *Client) Shadows(ctx context.Context, key *ServiceKey) (*ShadowsReply, error) {
	var query url.Values
	if key != nil {
		query = key.query()
	}
	var reply ShadowsReply
	if err := c.call(ctx, http.MethodGet, "/v1/shadows", query, nil, 0, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// Doctor asks the network for mistakes around the director.
func (c *Client) Doctor(ctx context.Context) (*Diagnosis, error) {
	var d Diagnosis
	if err := c.call(ctx, http.MethodPost, "/v1/doctor", nil, nil, 0, &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// Status returns the director's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	if err := c.call(ctx, http.MethodGet, "/v1/status", nil, nil, 0, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Version says what runs.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/version", nil, nil, 0, &v)
	return v, err
}
