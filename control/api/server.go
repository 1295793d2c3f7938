package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// How long a client may take. The socket is local: these only stop a client that hangs.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	writeTimeout  = 30 * time.Second // for each piece of a stream
	idleTimeout   = 2 * time.Minute
	closeTimeout  = 2 * time.Second // for requests in flight when the server ends
)

// Aside is a handler that a server has beside the API, of the paths that begin with Prefix.
type Aside struct {
	Prefix  string
	Handler http.Handler
}

// Serve answers requests on l from b, and by the handlers aside, until ctx ends, then lets the requests in flight finish for a
// short while, closes l and returns nil. Another error is one of accepting connections.
func Serve(ctx context.Context, l net.Listener, b Backend, aside ...Aside) error {
	// Requests outlive ctx by closeTimeout: a change that came in just before the end is answered.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	h := newHandler(b)
	h.ending = ctx // a trace in flight would never finish by itself
	h.aside = aside
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(base, closeTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		cut()
		srv.Close()
	}
	<-done
	return nil
}

// handler answers with JSON, errors too.
type handler struct {
	backend Backend
	ending  context.Context // ends streams that have no end
	aside   []Aside
	routes  map[string]map[string]func(http.ResponseWriter, *http.Request) error
}

// NewHandler returns the handler of all paths.
func NewHandler(b Backend) http.Handler { return newHandler(b) }

func newHandler(b Backend) *handler {
	h := &handler{backend: b, ending: context.Background()}
	h.routes = map[string]map[string]func(http.ResponseWriter, *http.Request) error{
		"/v1/change":      {http.MethodPost: h.change},
		"/v1/services":    {http.MethodGet: h.services},
		"/v1/connections": {http.MethodGet: h.connections},
		"/v1/timeouts":    {http.MethodGet: h.timeouts},
		"/v1/daemons":     {http.MethodGet: h.daemons},
		"/v1/marks":       {http.MethodGet: h.marks},
		"/v1/sysctl":      {http.MethodGet: h.settings, http.MethodPost: h.set},
		"/v1/explain":     {http.MethodPost: h.explain},
		"/v1/drain":       {http.MethodGet: h.drains, http.MethodPost: h.drain},
		"/v1/undrain":     {http.MethodPost: h.undrain},
		"/v1/reload":      {http.MethodPost: h.reload},
		"/v1/save":        {http.MethodPost: h.save},
		"/v1/shadows":     {http.MethodGet: h.shadows, http.MethodPost: h.shadow},
		"/v1/health":      {http.MethodGet: h.health},
		"/v1/checktest":   {http.MethodPost: h.testChecks},
		"/v1/trace":       {http.MethodGet: h.trace},
		"/v1/doctor":      {http.MethodPost: h.doctor},
		"/v1/status":      {http.MethodGet: h.status},
		"/v1/version":     {http.MethodGet: h.version},
		"/v1/openapi":     {http.MethodGet: h.openAPI},
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, a := range h.aside {
		if strings.HasPrefix(r.URL.Path, a.Prefix) {
			a.Handler.ServeHTTP(w, r)
			return
		}
	}
	// Streams push the write deadline on with each piece. The read deadline ends with the body: left in force, as
	// http.Server.ReadTimeout would, it cancels the request while its answer is being made.
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(bodyTimeout + writeTimeout))
	if r.ContentLength != 0 {
		_ = c.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	methods, ok := h.routes[r.URL.Path]
	if !ok {
		replyError(w, Errorf(NotFound, "no such path: %s", r.URL.Path))
		return
	}
	f, ok := methods[r.Method]
	if !ok {
		for m := range methods {
			w.Header().Add("Allow", m)
		}
		replyError(w, Errorf(BadMethod, "%s does not take %s", r.URL.Path, r.Method))
		return
	}
	if r.Method == http.MethodGet && r.ContentLength != 0 {
		replyError(w, Errorf(BadRequest, "%s takes no body", r.URL.Path))
		return
	}
	if err := f(w, r); err != nil {
		replyError(w, AsError(err))
	}
}

// statusOf maps a code to the HTTP status of a refused request.
func statusOf(c Code) int {
	switch c {
	case BadRequest:
		return http.StatusBadRequest
	case NotFound, ServiceNotFound, ServerNotFound, MarkNotFound, SettingNotFound, CheckNotFound:
		return http.StatusNotFound
	case BadMethod:
		return http.StatusMethodNotAllowed
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case Unsupported:
		return http.StatusNotImplemented
	case Internal:
		return http.StatusInternalServerError
	default:
		return http.StatusConflict
	}
}

// errorReply is the body of a refused request, and the last line of a stream that broke.
type errorReply struct {
	Error *Error `json:"error"`
}

func replyError(w http.ResponseWriter, e *Error) {
	reply(w, statusOf(e.Code), errorReply{e})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that went away gets no answer, and there is nobody to tell.
	_ = json.NewEncoder(w).Encode(body)
}

func (h *handler) change(w http.ResponseWriter, r *http.Request) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	req, err := DecodeChange(body)
	if err != nil {
		return err
	}
	rep, err := h.backend.Change(r.Context(), req)
	if err != nil {
		return err
	}
	if len(rep.Results) != len(req.Ops) {
		return Errorf(Internal, "%d results for %d operations", len(rep.Results), len(req.Ops))
	}
	if rep.Results == nil {
		rep.Results = []OpResult{}
	}
	status := http.StatusOK
	if rep.Err() != nil {
		status = http.StatusConflict
	}
	reply(w, status, rep)
	return nil
}

// read takes the body of a request without parameters.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := noQuery(r); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, Errorf(TooLarge, "the body is longer than %d bytes", MaxBody)
	} else if err != nil {
		return nil, Errorf(BadRequest, "body: %v", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, nil
}

func (h *handler) services(w http.ResponseWriter, r *http.Request) error {
	key, err := DecodeKey(r.URL.RawQuery)
	if err != nil {
		return err
	}
	list, err := h.backend.Services(r.Context(), key)
	if err != nil {
		return err
	}
	if list == nil {
		list = []Service{}
	}
	for i := range list {
		if list[i].Servers == nil {
			list[i].Servers = []Server{}
		}
	}
	reply(w, http.StatusOK, ServicesReply{list})
	return nil
}

// piece is how much of a stream is gathered before it is sent.
const piece = 64 << 10

// stream writes pieces, each within writeTimeout, and knows whether one has left.
type stream struct {
	w    http.ResponseWriter
	c    *http.ResponseController
	sent bool
}

// Write implements io.Writer.
func (s *stream) Write(b []byte) (int, error) {
	s.sent = true
	if err := s.c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return s.w.Write(b)
}

func (h *handler) connections(w http.ResponseWriter, r *http.Request) error {
	key, err := DecodeKey(r.URL.RawQuery)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := &stream{w: w, c: http.NewResponseController(w)}
	buf := bufio.NewWriterSize(s, piece)
	enc := json.NewEncoder(buf)
	err = h.backend.Connections(r.Context(), ConnectionFilter{Service: key}, func(c *Connection) error { return enc.Encode(c) })
	if err != nil && !s.sent {
		return err
	}
	if err != nil {
		// The status is gone with the first piece; the last line says that the list is not whole.
		_ = enc.Encode(errorReply{AsError(err)})
	}
	_ = buf.Flush()
	return nil
}

func (h *handler) timeouts(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, h.backend.Timeouts)
}

func (h *handler) daemons(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, func(ctx context.Context) (DaemonsReply, error) {
		list, err := h.backend.Daemons(ctx)
		if list == nil {
			list = []Daemon{}
		}
		return DaemonsReply{list}, err
	})
}

func (h *handler) marks(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, func(ctx context.Context) (MarksReply, error) {
		rules, err := h.backend.Marks(ctx)
		if rules == nil {
			rules = []MarkRule{}
		}
		return MarksReply{rules}, err
	})
}

func (h *handler) settings(w http.ResponseWriter, r *http.Request) error {
	names, err := DecodeNames(r.URL.RawQuery)
	if err != nil {
		return err
	}
	list, err := h.backend.Settings(r.Context(), names)
	if err != nil {
		return err
	}
	if list == nil {
		list = []Setting{}
	}
	reply(w, http.StatusOK, SettingsReply{list})
	return nil
}

func (h *handler) set(w http.ResponseWriter, r *http.Request) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	req, err := DecodeSettings(body)
	if err != nil {
		return err
	}
	list, err := h.backend.Set(r.Context(), req.Settings)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, SettingsReply{list})
	return nil
}

func (h *handler) explain(w http.ResponseWriter, r *http.Request) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	req, err := DecodeExplain(body)
	if err != nil {
		return err
	}
	x, err := h.backend.Explain(r.Context(), req)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, x)
	return nil
}

func (h *handler) drain(w http.ResponseWriter, r *http.Request) error {
	return ask[DrainRequest](w, r, func(ctx context.Context, req *DrainRequest) (DrainsReply, error) {
		list, err := h.backend.Drain(ctx, req)
		return DrainsReply{list}, err
	})
}

func (h *handler) undrain(w http.ResponseWriter, r *http.Request) error {
	return ask[UndrainRequest](w, r, func(ctx context.Context, req *UndrainRequest) (DrainsReply, error) {
		list, err := h.backend.Undrain(ctx, req)
		return DrainsReply{list}, err
	})
}

func (h *handler) reload(w http.ResponseWriter, r *http.Request) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	req, err := decodeChecked[ReloadRequest](body)
	if err != nil {
		return err
	}
	x, err := h.backend.Reload(r.Context(), req)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if len(x.Errors) > 0 {
		status = http.StatusConflict
	}
	reply(w, status, x)
	return nil
}

func (h *handler) save(w http.ResponseWriter, r *http.Request) error {
	return ask[SaveRequest](w, r, func(ctx context.Context, req *SaveRequest) (*Saved, error) { return h.backend.Save(ctx, req) })
}

func (h *handler) drains(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, func(ctx context.Context) (DrainsReply, error) {
		list, err := h.backend.Drains(ctx)
		if list == nil {
			list = []Drain{}
		}
		return DrainsReply{list}, err
	})
}

func (h *handler) shadows(w http.ResponseWriter, r *http.Request) error {
	key, err := DecodeKey(r.URL.RawQuery)
	if err != nil {
		return err
	}
	v, err := h.backend.Shadows(r.Context(), key)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, v)
	return nil
}

func (h *handler) shadow(w http.ResponseWriter, r *http.Request) error {
	return ask(w, r, h.backend.Shadow)
}

func (h *handler) health(w http.ResponseWriter, r *http.Request) error {
	key, err := DecodeKey(r.URL.RawQuery)
	if err != nil {
		return err
	}
	list, err := h.backend.Health(r.Context(), key)
	if err != nil {
		return err
	}
	if list == nil {
		list = []ServerHealth{}
	}
	reply(w, http.StatusOK, HealthReply{list})
	return nil
}

func (h *handler) testChecks(w http.ResponseWriter, r *http.Request) error {
	return ask[CheckTestRequest](w, r, func(ctx context.Context, req *CheckTestRequest) (CheckTestReply, error) {
		list, err := h.backend.TestChecks(ctx, req)
		return CheckTestReply{list}, err
	})
}

// ask replies with what do makes of a request's body.
func ask[T any, P checked[T], R any](w http.ResponseWriter, r *http.Request, do func(context.Context, P) (R, error)) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	req, err := decodeChecked[T, P](body)
	if err != nil {
		return err
	}
	v, err := do(r.Context(), req)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, v)
	return nil
}

func (h *handler) doctor(w http.ResponseWriter, r *http.Request) error {
	switch body, err := read(w, r); {
	case err != nil:
		return err
	case len(body) > 0:
		return Errorf(BadRequest, "%s takes no body", r.URL.Path)
	}
	d, err := h.backend.Doctor(r.Context())
	if err != nil {
		return err
	}
	if d.Findings == nil {
		d.Findings = []Finding{}
	}
	if d.Unchecked == nil {
		d.Unchecked = []string{}
	}
	reply(w, http.StatusOK, d)
	return nil
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, h.backend.Status)
}

func (h *handler) version(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, h.backend.Version)
}

// answer replies with what get returns, to a request without parameters.
func answer[T any](w http.ResponseWriter, r *http.Request, get func(context.Context) (T, error)) error {
	if err := noQuery(r); err != nil {
		return err
	}
	v, err := get(r.Context())
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, v)
	return nil
}

func noQuery(r *http.Request) error {
	if r.URL.RawQuery != "" {
		return Errorf(BadRequest, "%s takes no parameters", r.URL.Path)
	}
	return nil
}
