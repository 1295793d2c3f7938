package main

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"time"

	"uvs/control/api"
)

// schemas are those of the API's types so far, by their names.
type schemas struct {
	src     *source
	done    object
	missing []string // fields without a description
}

// known are the schemas of types that say themselves how they are written.
var known = map[reflect.Type]object{
	reflect.TypeFor[netip.Addr]():     {"type": "string", "description": "An IP address."},
	reflect.TypeFor[netip.AddrPort](): {"type": "string", "description": "An IP address and a port: 192.0.2.1:80 or [2001:db8::1]:80."},
	reflect.TypeFor[netip.Prefix]():   {"type": "string", "description": "A network: 10.0.0.0/8 or 2001:db8::/32."},
	reflect.TypeFor[time.Time]():      {"type": "string", "format": "date-time"},
	reflect.TypeFor[api.Netmask]():    {"type": "string", "description": "255.255.255.0, or for IPv6 a prefix length: 64."},
	reflect.TypeFor[api.PolicySpec](): {"type": "object", "additionalProperties": true},
	reflect.TypeFor[api.CheckSpec]():  {"type": "object", "properties": object{"kind": object{"type": "string"}}, "required": []string{"kind"}, "additionalProperties": true},
	reflect.TypeFor[api.PortRange]():  {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$", "description": "A port or a range: 80 or 1024-65535."},
}

// enums are the values of fields that are plain strings in Go. Those of types of their own are their constants.
var enums = map[string][]string{
	"ServiceKey.protocol": {api.TCP, api.UDP, api.SCTP}, "ServiceKey.family": {api.IPv4, api.IPv6},
	"MarkRule.protocol": {api.TCP, api.UDP, api.SCTP}, "ExplainRequest.protocol": {api.TCP, api.UDP},
	"Connection.protocol": {api.TCP, api.UDP, api.SCTP, api.IP},
	"ServerConfig.method": {api.Masq, api.Local, api.Tunnel, api.Route}, "ExplainedServer.method": {api.Masq, api.Local, api.Tunnel, api.Route},
	"TunnelConfig.type": {api.IPIP, api.GUE, api.GRE}, "TunnelConfig.checksum": {api.NoChecksum, api.Checksum, api.RemoteChecksum},
	"Daemon.role": {api.Master, api.Backup}, "Difference.kind": {api.Added, api.Changed, api.Removed, api.Kept, api.Dropped}, "Drain.state": {api.Draining, api.Cutting, api.Drained},
	"ServerHealth.state": {api.Unknown, api.StateUp, api.StateDown},
	"CheckHealth.state":  {api.Unknown, api.StateUp, api.StateDown}, "StateChange.to": {api.Unknown, api.StateUp, api.StateDown},
	"Finding.kind": {api.FindingARP, api.FindingSecondDirector, api.FindingNoVIP, api.FindingNoTunnel, api.FindingNotListening, api.FindingSilent,
		api.FindingUnreachable, api.FindingNATBypass, api.FindingTunnelMTU, api.FindingHost, api.FindingOffload, api.FindingDrops},
	"Explanation.known": {"none", "open", "server-removed", "cut", "replaced"}, "ExplainedServer.state": {"eligible", "quiesced", "overloaded"},
}

// of is the schema of a value's type: a reference for a struct of the API.
func (s *schemas) of(v any) object { return s.ofType(reflect.TypeOf(v)) }

func (s *schemas) ofType(t reflect.Type) object {
	if t.Kind() == reflect.Pointer {
		return s.ofType(t.Elem())
	}
	if k, ok := known[t]; ok {
		return k
	}
	switch t.Kind() {
	case reflect.Struct:
		if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			panic(fmt.Sprintf("%v writes itself: say in schema.go how", t))
		}
		if _, ok := s.done[t.Name()]; !ok {
			s.done[t.Name()] = nil // it may contain itself
			s.done[t.Name()] = s.structure(t)
		}
		return ref("schemas", t.Name())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.ofType(t.Elem())}
	case reflect.String:
		if values := s.src.constants[t.Name()]; values != nil {
			return object{"type": "string", "enum": values}
		}
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{"type": "integer", "minimum": 0, "maximum": uint64(math.MaxUint64) >> (64 - t.Bits())}
	case reflect.Uint, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	}
	panic(fmt.Sprintf("no schema for %v: say in schema.go how it is written", t))
}

// structure is the schema of a struct with all its fields, those of embedded structs among them.
func (s *schemas) structure(t reflect.Type) object {
	properties, required := object{}, []string{}
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				add(f.Type)
				continue
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				panic(fmt.Sprintf("%v.%s has no name in JSON", t, f.Name))
			}
			p := object{}
			for k, v := range s.ofType(f.Type) {
				p[k] = v
			}
			if values := enums[t.Name()+"."+name]; values != nil {
				p["enum"] = values
			}
			text := s.src.fields[t.Name()+"."+f.Name]
			if text == "" || !s.src.own[t.Name()+"."+f.Name] && !regexp.MustCompile(`\b`+f.Name+`\b`).MatchString(text) {
				s.missing = append(s.missing, t.Name()+"."+f.Name)
			}
			p["description"] = text
			properties[name] = p
			if !strings.Contains(options, "omit") {
				required = append(required, name)
			}
		}
	}
	add(t)
	out := object{"type": "object", "description": s.src.types[t.Name()], "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}
