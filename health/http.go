package health

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// headBytes is how long the head of an answer may be.
const headBytes = 32 << 10

// HTTP is the kind "http": one request on a connection of its own. Redirections are not followed.
type HTTP struct {
	// Method is the request's method. Default GET.
	Method string `json:"method,omitempty"`
	// Path is what is asked for, with its query. Default /.
	Path string `json:"path,omitempty"`
	// Host is the Host header, and the server's name for TLS. Default: the real server's address, and its port if that isn't the
	// scheme's own.
	Host string `json:"host,omitempty"`
	// Headers are further lines of the request, each "Name: value".
	Headers []string `json:"headers,omitempty"`
	// User and password are sent by HTTP's basic authentication.
	User string `json:"user,omitempty"`
	// Password is user's.
	Password string `json:"password,omitempty"`
	// Data is a body for the request; give its Content-Type among the headers.
	Data string `json:"data,omitempty"`
	// Version is HTTP's: 1.0, 1.1 or 2; http speaks 2 without TLS, from the first byte. Default 1.1.
	Version string `json:"version,omitempty"`
	// Status are the answers that are good, numbers and ranges with commas between them. Default 200-399.
	Status string `json:"status,omitempty"`
	// Contains is text that the body must have somewhere.
	Contains string `json:"contains,omitempty"`
	// Match is a regular expression (Go's, RE2) that must match somewhere in the body.
	Match string `json:"match,omitempty"`
	// Digest is the body's MD5 in hexadecimal digits, as keepalived's genhash prints it, or its SHA-256.
	Digest string `json:"digest,omitempty"`
	// MaxBody is how many bytes of the body are read. A longer body is cut there; with digest it is an error. Default 65536.
	MaxBody int64 `json:"max_body,omitempty"`

	codes   []codeRange
	match   *regexp.Regexp
	digest  []byte
	newHash func() hash.Hash
	line    string      // of the request, and what precedes its Host header
	fields  string      // of the request, after its Host header, its end and its body
	header  http.Header // the same for HTTP/2
}

// HTTPS is the kind "https": one request by TLS, on a connection of its own. Redirections are not followed.
type HTTPS struct {
	HTTP
	TLSOptions
}

// codeRange is a range of status codes, both ends included.
type codeRange struct{ first, last int }

// Kind implements Prober.
func (*HTTP) Kind() string { return "http" }

// Kind implements Prober.
func (*HTTPS) Kind() string { return "https" }

// Prepare implements Prober.
func (h *HTTP) Prepare() error {
	h.Method, h.Path = cmp.Or(h.Method, http.MethodGet), cmp.Or(h.Path, "/")
	h.Version, h.Status, h.MaxBody = cmp.Or(h.Version, "1.1"), cmp.Or(h.Status, "200-399"), cmp.Or(h.MaxBody, 64<<10)
	if !isToken(h.Method) {
		return fmt.Errorf("method: %q is none", h.Method)
	}
	if !strings.HasPrefix(h.Path, "/") && h.Path != "*" || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("path: %q doesn't begin with a slash, or has blanks: these are written %%20", h.Path)
	}
	if strings.ContainsFunc(h.Host, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return fmt.Errorf("host: %q is no name", h.Host)
	}
	if h.MaxBody < 0 {
		return errors.New("max_body: a number of bytes is expected")
	}
	if h.Version != "1.0" && h.Version != "1.1" && h.Version != "2" {
		return fmt.Errorf("version: %q is not one of 1.0, 1.1, 2", h.Version)
	}
	var err error
	if h.codes, err = parseCodes(h.Status, 100, 599); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if h.Match != "" {
		if h.match, err = regexp.Compile(h.Match); err != nil {
			return fmt.Errorf("match: %w", err)
		}
	}
	if err := h.prepareDigest(); err != nil {
		return err
	}
	return h.prepareRequest()
}

func (h *HTTP) prepareDigest() error {
	if h.Digest == "" {
		return nil
	}
	var err error
	if h.digest, err = hex.DecodeString(h.Digest); err == nil {
		switch len(h.digest) {
		case md5.Size:
			h.newHash = md5.New
			return nil
		case sha256.Size:
			h.newHash = sha256.New
			return nil
		}
	}
	return errors.New("digest: the 32 hexadecimal digits of an MD5 or the 64 of a SHA-256 are expected")
}

// prepareRequest makes the request's bytes but for its Host header.
func (h *HTTP) prepareRequest() error {
	h.header = http.Header{"User-Agent": {"uvs"}, "Accept": {"*/*"}}
	if h.User != "" || h.Password != "" {
		h.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(h.User+":"+h.Password)))
	}
	own := http.Header{}
	for _, line := range h.Headers {
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !isToken(name) || strings.ContainsFunc(value, isControl) {
			return fmt.Errorf("headers: %q is not of the form Name: value", line)
		}
		switch http.CanonicalHeaderKey(name) {
		case "Host":
			return errors.New("headers: host is an option of its own")
		case "Content-Length", "Transfer-Encoding", "Connection":
			return fmt.Errorf("headers: %s is the check's own affair", name)
		}
		own.Add(name, value)
	}
	for name, values := range own { // in place of ours
		h.header[name] = values
	}
	h.line = fmt.Sprintf("%s %s HTTP/%s\r\nHost: ", h.Method, h.Path, h.Version)
	var b bytes.Buffer
	if err := h.header.Write(&b); err != nil {
		return err
	}
	if h.Data != "" || h.Method == http.MethodPost || h.Method == http.MethodPut {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(h.Data))
	}
	b.WriteString("Connection: close\r\n\r\n" + h.Data)
	h.fields = b.String()
	return nil
}

// Prepare implements Prober.
func (h *HTTPS) Prepare() error {
	if err := h.HTTP.Prepare(); err != nil {
		return err
	}
	protocol := "http/1.1"
	if h.Version == "2" {
		protocol = "h2"
	}
	return h.TLSOptions.prepare(serverName(h.Host), protocol)
}

// serverName is the name in a Host header, or nothing if that is an address, which TLS doesn't know as a name.
func serverName(host string) string {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return ""
	}
	return name
}

// Probe implements Prober.
func (h *HTTP) Probe(ctx context.Context, to *Target) (string, error) { return h.probe(ctx, to, nil) }

// Probe implements Prober.
func (h *HTTPS) Probe(ctx context.Context, to *Target) (string, error) {
	return h.probe(ctx, to, &h.TLSOptions)
}

// probe asks once, by TLS if secure has its options.
func (h *HTTP) probe(ctx context.Context, to *Target, secure *TLSOptions) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	t.left = int(min(headBytes+h.MaxBody+h.MaxBody/8, 1<<40)) // chunks have heads of their own
	scheme, port := "http", uint16(80)
	if secure != nil {
		scheme, port = "https", 443
		if err := t.startTLS(secure.config); err != nil {
			return "", err
		}
	}
	host := h.Host
	if host == "" {
		if host = to.Server.String(); to.Server.Port() == port {
			host = strings.TrimSuffix(host, ":"+strconv.Itoa(int(port)))
		}
	}
	if h.Version == "2" {
		return h.probe2(t, scheme, host)
	}
	if _, err := io.WriteString(t, h.line+host+"\r\n"+h.fields); err != nil {
		return "", because("cannot send the request", err)
	}
	resp, err := http.ReadResponse(t.r, &http.Request{Method: h.Method})
	if err != nil {
		return "", because("no answer", err)
	}
	defer resp.Body.Close()
	return h.judge(resp)
}

// judge says what an answer is worth.
func (h *HTTP) judge(resp *http.Response) (string, error) {
	said := printable(strings.TrimSpace(strconv.Itoa(resp.StatusCode) + " " + strings.TrimPrefix(resp.Status, strconv.Itoa(resp.StatusCode))))
	said = strings.Join(strings.Fields(said), " ")
	if !inRanges(h.codes, resp.StatusCode) {
		return "", fmt.Errorf("status %s, not %s", said, h.Status)
	}
	body := &body{r: resp.Body, left: h.MaxBody}
	if err := h.judgeBody(body); err != nil {
		return "", fmt.Errorf("%s, but %w", said, err)
	}
	return said, nil
}

// judgeBody reads the body and holds it against what is expected of it.
func (h *HTTP) judgeBody(b *body) error {
	var digest hash.Hash
	var r io.Reader = b
	if h.newHash != nil {
		digest = h.newHash()
		r = io.TeeReader(r, digest)
	}
	var whole bytes.Buffer
	if h.Contains != "" || h.match != nil {
		r = io.TeeReader(r, &whole)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return because("its body is cut short", err)
	}
	switch {
	case h.Contains != "" && !bytes.Contains(whole.Bytes(), []byte(h.Contains)):
		return fmt.Errorf("%q isn't in the body", h.Contains)
	case h.match != nil && !h.match.Match(whole.Bytes()):
		return fmt.Errorf("the body doesn't match %q", h.Match)
	case digest != nil && b.more:
		return fmt.Errorf("its body is longer than %d bytes: set max_body", h.MaxBody)
	case digest != nil && !bytes.Equal(digest.Sum(nil), h.digest):
		return fmt.Errorf("the body's digest is %x", digest.Sum(nil))
	}
	return nil
}

// body reads a body up to a length.
type body struct {
	r    io.Reader
	left int64
	more bool // there was more
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		n, err := io.ReadFull(b.r, one[:])
		b.more = n > 0
		if n > 0 || err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// probe2 asks by HTTP/2 over a connection on which nothing has been said yet, TLS aside.
func (h *HTTP) probe2(t *talk, scheme, host string) (string, error) {
	u, err := url.ParseRequestURI(h.Path)
	if err != nil {
		return "", fmt.Errorf("path: %w", err)
	}
	u.Scheme, u.Host = scheme, host
	req := (&http.Request{Method: h.Method, URL: u, Host: host, Header: h.header.Clone()}).WithContext(t.ctx)
	if h.Data != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(h.Data)), int64(len(h.Data))
	}
	resp, end, err := t.roundTrip2(req)
	if err != nil {
		return "", err
	}
	defer end()
	defer resp.Body.Close()
	return h.judge(resp)
}

// isToken says that s may be a method or a header's name (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// isControl says that r may be in no line of a protocol of lines.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// parseCodes reads numbers and ranges with commas between them, each from first to last.
func parseCodes(s string, first, last int) ([]codeRange, error) {
	var all []codeRange
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(strings.TrimSpace(from))
		b, err2 := strconv.Atoi(strings.TrimSpace(to))
		if err1 != nil || err2 != nil || a < first || b > last || a > b {
			return nil, fmt.Errorf("%q is no number or range from %d to %d", part, first, last)
		}
		all = append(all, codeRange{a, b})
	}
	return all, nil
}

func inRanges(all []codeRange, code int) bool {
	for _, r := range all {
		if r.first <= code && code <= r.last {
			return true
		}
	}
	return false
}
