package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// TraceRequest is what the query of GET /v1/trace says: which frames to trace. They must meet every condition.
type TraceRequest struct {
	// Client is the station that a connection is from, or an end of a packet that belongs to none. Parameter client:
	// an address, or address and port. The port 0 is any.
	Client netip.AddrPort
	// Server is the real server likewise. Parameter server.
	Server netip.AddrPort
	// Service is the virtual service, which need not exist; nil is any. Parameters protocol, address and port, or fwmark and
	// family.
	Service *ServiceKey
	// Interface is the one that frames came in by. Parameter interface.
	Interface string
	// Verdicts are those asked for, by name ("forwarded-dr") or class ("forwarded", "answered", "passed", "dropped").
	// Parameter verdict, once for each.
	Verdicts []string
	// Frames says that the frames' bytes are wanted too. Parameter frames: "true".
	Frames bool
}

// TraceEvent is one line of GET /v1/trace: a frame that came in and what became of it, or, without Verdict, only that frames
// are missing.
type TraceEvent struct {
	// Missed counts the frames since the line before that are not in the trace, because they were too many or its reader too
	// slow. They went their way all the same.
	Missed uint64 `json:"missed,omitempty"`
	// Time is when the frame came in.
	Time time.Time `json:"time,omitzero"`
	// Verdict is how the frame ended, as in Status.Drops and Explanation. Meaning says why in words.
	Verdict string `json:"verdict,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	// Waited says that it was held for its next hop before.
	Waited bool `json:"waited,omitempty"`
	// Connection is the frame's, Opened says that it opened it.
	Connection *Connection `json:"connection,omitempty"`
	Opened     bool        `json:"opened,omitempty"`
	// In is the frame as it came, Out what was sent of it or in answer to it, as it left.
	In  *TraceFrame  `json:"in,omitempty"`
	Out []TraceFrame `json:"out,omitempty"`
}

// TraceFrame is an Ethernet frame.
type TraceFrame struct {
	// Interface is the one that it came in or left by.
	Interface string `json:"interface"`
	// Summary says in one line what is in it.
	Summary string `json:"summary"`
	// Length is that of the frame in bytes, without its check sequence.
	Length int `json:"length"`
	// SegmentSize is there for a super-frame, which stands for several segments with so many bytes of payload.
	SegmentSize int `json:"segmentSize,omitempty"`
	// Data is the frame itself, where TraceRequest.Frames asks for it.
	Data []byte `json:"data,omitempty"`
}

// query is what DecodeTrace reads.
func (r *TraceRequest) query() url.Values {
	v := url.Values{}
	if r.Service != nil {
		v = r.Service.query()
	}
	for name, a := range map[string]netip.AddrPort{"client": r.Client, "server": r.Server} {
		if a.IsValid() {
			v.Set(name, formatEnd(a))
		}
	}
	if r.Interface != "" {
		v.Set("interface", r.Interface)
	}
	for _, name := range r.Verdicts {
		v.Add("verdict", name)
	}
	if r.Frames {
		v.Set("frames", "true")
	}
	return v
}

func formatEnd(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// ParseEnd reads an address with or without a port, which is then 0.
func ParseEnd(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q is neither an address nor an address with a port", s)
	}
	return a, nil
}

// DecodeTrace reads the parameters of GET /v1/trace. Unknown and repeated ones are refused; its error has the code BadRequest.
func DecodeTrace(rawQuery string) (*TraceRequest, error) {
	v, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, Errorf(BadRequest, "query: %v", err)
	}
	r := new(TraceRequest)
	for _, name := range []string{"client", "server", "interface", "verdict", "frames"} {
		values := v[name]
		if len(values) == 0 {
			continue
		}
		v.Del(name)
		if len(values) > 1 && name != "verdict" {
			return nil, Errorf(BadRequest, "query: %q is there twice", name)
		}
		switch s := values[0]; name {
		case "client":
			r.Client, err = ParseEnd(s)
		case "server":
			r.Server, err = ParseEnd(s)
		case "interface":
			r.Interface = s
		case "verdict":
			r.Verdicts = values
		case "frames":
			r.Frames, err = strconv.ParseBool(s)
		}
		if err != nil {
			return nil, Errorf(BadRequest, "query: %q: %v", name, err)
		}
	}
	if r.Service, err = DecodeKey(v.Encode()); err != nil {
		return nil, err
	}
	return r, r.Check()
}

// maxVerdicts is more than there are.
const maxVerdicts = 256

// Check says what is wrong with a request.
func (r *TraceRequest) Check() error {
	for _, a := range []netip.Addr{r.Client.Addr(), r.Server.Addr()} {
		switch {
		case !a.IsValid():
		case a.Is4In6():
			return Errorf(BadRequest, "an IPv4 address is written as IPv6")
		case a.Zone() != "":
			return Errorf(BadRequest, "addresses have no zone here")
		}
	}
	if len(r.Verdicts) > maxVerdicts {
		return Errorf(BadRequest, "more than %d verdicts", maxVerdicts)
	}
	return nil
}

// trace streams until the client goes or the server ends.
func (h *handler) trace(w http.ResponseWriter, r *http.Request) error {
	req, err := DecodeTrace(r.URL.RawQuery)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.ending, cancel)()
	s := &stream{w: w, c: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(s)
	err = h.backend.Trace(ctx, req, func() error {
		w.WriteHeader(http.StatusOK)
		s.sent = true
		return s.c.Flush()
	}, func(e *TraceEvent) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		return s.c.Flush()
	})
	switch {
	case err != nil && !s.sent:
		return err
	case err != nil && ctx.Err() == nil:
		_ = enc.Encode(errorReply{AsError(err)})
	}
	return nil
}

// Trace calls begun when the trace has begun and then yield for each event as it arrives, until ctx ends or yield fails, with
// their error. Without either it ends with uvsd.
func (c *Client) Trace(ctx context.Context, req *TraceRequest, begun func() error, yield func(*TraceEvent) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/trace", req.query(), nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := begun(); err != nil {
		return err
	}
	d := json.NewDecoder(bufio.NewReaderSize(resp.Body, piece))
	for {
		var line struct {
			TraceEvent
			Error *Error `json:"error"`
		}
		switch err := d.Decode(&line); {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("uvsd at %s: the trace breaks off: %w", c.socket, err)
		case line.Error != nil:
			return line.Error
		}
		if err := yield(&line.TraceEvent); err != nil {
			return err
		}
	}
}
