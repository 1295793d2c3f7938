package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Limits of a request. They bound what one client can make uvsd hold in memory.
const (
	// MaxBody is the longest body in bytes.
	MaxBody = 64 << 20
	// MaxOps is the highest number of operations in one change.
	MaxOps = 100_000
)

// maxDepth is deeper than any sound body.
const maxDepth = 8

// DecodeChange reads the body of POST /v1/change strictly: one JSON value, no unknown or repeated fields, every
// operation well formed. An absent OnError becomes Atomic. Its error has the code BadRequest.
func DecodeChange(body []byte) (*ChangeRequest, error) {
	var req ChangeRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	switch req.OnError {
	case Atomic, Stop, Continue:
	case "":
		req.OnError = Atomic
	default:
		return nil, Errorf(BadRequest, "onError is %q, %q or %q, not %q", Atomic, Stop, Continue, req.OnError)
	}
	if req.Ops == nil {
		return nil, Errorf(BadRequest, `body: the field "ops" is missing`)
	}
	for i := range req.Ops {
		if err := req.Ops[i].Check(); err != nil {
			return nil, Errorf(BadRequest, "operation %d: %v", i, err)
		}
	}
	return &req, nil
}

// DecodeSettings reads the body of POST /v1/sysctl as strictly. Its error has the code BadRequest.
func DecodeSettings(body []byte) (*SettingsRequest, error) {
	var req SettingsRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	switch {
	case len(req.Settings) == 0:
		return nil, Errorf(BadRequest, `body: the field "settings" is missing or empty`)
	case len(req.Settings) > MaxSettings:
		return nil, Errorf(BadRequest, "body: more than %d settings", MaxSettings)
	}
	for i := range req.Settings {
		switch s := &req.Settings[i]; {
		case s.Name == "":
			return nil, Errorf(BadRequest, "setting %d: the name is missing", i)
		case s.Default != "" || s.Note != "":
			return nil, Errorf(BadRequest, "setting %d: default and note cannot be set", i)
		}
	}
	return &req, nil
}

// DecodeExplain reads the body of POST /v1/explain as strictly. Its error has the code BadRequest.
func DecodeExplain(body []byte) (*ExplainRequest, error) {
	var req ExplainRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	return &req, req.Check()
}

// checked is a request that says itself what is wrong with it.
type checked[T any] interface {
	*T
	Check() error
}

// decodeChecked reads a body strictly and checks the request. Its error has the code BadRequest.
func decodeChecked[T any, P checked[T]](body []byte) (P, error) {
	req := P(new(T))
	if err := decode(body, req); err != nil {
		return nil, err
	}
	return req, req.Check()
}

// decode reads one JSON value strictly.
func decode(body []byte, into any) error {
	// encoding/json takes the last of two fields with one name and builds a whole array before anyone can count it, so
	// the tokens are looked over first.
	if err := scan(body); err != nil {
		return Errorf(BadRequest, "body: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Errorf(BadRequest, "body: %v", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// DecodeNames reads the settings that query parameters name, which may be none. Its error has the code BadRequest.
func DecodeNames(rawQuery string) ([]string, error) {
	v, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, Errorf(BadRequest, "query: %v", err)
	}
	for name := range v {
		if name != "name" {
			return nil, Errorf(BadRequest, "query: unknown parameter %q", name)
		}
	}
	if len(v["name"]) > MaxSettings {
		return nil, Errorf(BadRequest, "query: more than %d names", MaxSettings)
	}
	return v["name"], nil
}

// scan walks over one JSON value and refuses repeated names (equal but for case, as encoding/json matches them),
// arrays of more than MaxOps elements, and anything behind the value.
func scan(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := scanValue(d, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("no JSON in it, or cut short")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func scanValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errors.New("nested too deep")
	}
	var seen map[string]bool
	for n := 0; d.More(); n++ {
		if delim == '{' {
			if t, err = d.Token(); err != nil {
				return err
			}
			name := strings.ToLower(t.(string)) // the decoder lets nothing but a string be a name
			if seen[name] {
				return fmt.Errorf("the field %q is there twice", t)
			}
			if seen == nil {
				seen = make(map[string]bool)
			}
			seen[name] = true
		} else if n == MaxOps {
			return fmt.Errorf("more than %d operations", MaxOps)
		}
		if err := scanValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing brace or bracket
	return err
}

// query returns the key as the query parameters that DecodeKey reads.
func (k *ServiceKey) query() url.Values {
	v := url.Values{}
	if k.FWMark != 0 {
		v.Set("fwmark", strconv.FormatUint(uint64(k.FWMark), 10))
		v.Set("family", k.Family)
		return v
	}
	v.Set("protocol", k.Protocol)
	v.Set("address", k.Address.String())
	v.Set("port", strconv.Itoa(int(k.Port)))
	return v
}

// DecodeKey reads the service that query parameters name: protocol, address and port, or fwmark and family. Without
// parameters it is nil. Unknown and repeated parameters are refused; its error has the code BadRequest.
func DecodeKey(rawQuery string) (*ServiceKey, error) {
	v, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, Errorf(BadRequest, "query: %v", err)
	}
	if len(v) == 0 {
		return nil, nil
	}
	var k ServiceKey
	for name, values := range v {
		if len(values) != 1 {
			return nil, Errorf(BadRequest, "query: %q is there twice", name)
		}
		s := values[0]
		switch name {
		case "protocol":
			k.Protocol = s
		case "address":
			k.Address, err = netip.ParseAddr(s)
		case "port":
			var n uint64
			n, err = strconv.ParseUint(s, 10, 16)
			k.Port = uint16(n)
		case "fwmark":
			var n uint64
			n, err = strconv.ParseUint(s, 10, 32)
			k.FWMark = uint32(n)
		case "family":
			k.Family = s
		default:
			return nil, Errorf(BadRequest, "query: unknown parameter %q", name)
		}
		if err != nil {
			return nil, Errorf(BadRequest, "query: %q: %v", name, err)
		}
	}
	if err := k.Check(); err != nil {
		return nil, err
	}
	return &k, nil
}
