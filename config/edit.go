package config

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// Edit returns the file's text as it must be to ask for the state that a director has, and what was edited. What needs no edit
// keeps its form and its comments: a service's entry is edited key by key where it stands for one service, and server by server;
// one that stands for several, not all of which are alike any more, becomes an entry for each.
func (f *File) Edit(running *State, lookup Lookup) ([]byte, []api.Difference, error) {
	state, err := f.State(lookup)
	if err != nil {
		return nil, nil, err
	}
	differing := Diff(complete(state), running, nil, false)
	if differing.Empty() {
		return f.data, nil, nil
	}
	root := f.root
	if root == nil || root.Kind != yaml.MappingNode {
		root = &yaml.Node{Kind: yaml.MappingNode}
	}
	e := &editor{root: root, file: f, lookup: lookup, filed: state.index(), running: running.index()}
	if err := e.services(running); err != nil {
		return nil, nil, err
	}
	e.marks(running.Marks)
	e.settings(running, state)
	e.daemons(running.Daemons, state.Daemons)
	var b bytes.Buffer
	text, err := dump(&b, root)
	if err != nil {
		return nil, nil, err
	}
	again, err := Parse(f.Name, text)
	if err != nil {
		return nil, nil, fmt.Errorf("the edited file would not be sound: %w", err)
	}
	then, err := again.State(lookup)
	if err != nil {
		return nil, nil, fmt.Errorf("the edited file would not be sound: %w", err)
	}
	if left := Diff(complete(then), running, nil, false); !left.Empty() {
		return nil, nil, fmt.Errorf("the edited file would still differ: %v", left.Differences)
	}
	return text, differing.Differences, nil
}

// complete is what a director has that was given a file's state: with the defaults of what it doesn't say.
func complete(s *State) *State {
	out := *s
	out.Settings = maps.Clone(s.Settings)
	if out.Settings == nil {
		out.Settings = map[string]string{}
	}
	defaults := service.DefaultSettings()
	for _, x := range sysctl.All() {
		if _, ok := out.Settings[x.Name]; !ok {
			out.Settings[x.Name] = x.Describe(&defaults).Value
		}
	}
	for _, x := range []struct {
		to      *uint32
		initial uint32
	}{{&out.Timeouts.TCP, defaultTimeouts.TCP}, {&out.Timeouts.TCPFin, defaultTimeouts.TCPFin}, {&out.Timeouts.UDP, defaultTimeouts.UDP}} {
		if *x.to == 0 {
			*x.to = x.initial
		}
	}
	out.Marks = plainRules(s.Marks)
	return &out
}

// editor edits a file's nodes.
type editor struct {
	root           *yaml.Node
	file           *File
	lookup         Lookup
	filed, running map[api.ServiceKey]*ServiceState
}

// services edits the list of services.
func (e *editor) services(running *State) error {
	list := e.value(e.root, "services", yaml.SequenceNode)
	var nodes []*yaml.Node
	c := &e.file.Config
	for i := range c.Services {
		n := list.Content[i]
		keys := e.keysOf(&c.Services[i])
		same := !slices.ContainsFunc(keys, func(k api.ServiceKey) bool { return e.running[k] == nil || !sameService(e.running[k], e.filed[k]) })
		switch {
		case same:
			nodes = append(nodes, n)
		case len(keys) == 1 && e.running[keys[0]] == nil:
		case len(keys) == 1 && n.Kind == yaml.MappingNode:
			if err := e.service(n, &c.Services[i], e.running[keys[0]]); err != nil {
				return err
			}
			nodes = append(nodes, n)
		default:
			first := true
			for _, k := range keys {
				if v := e.running[k]; v != nil {
					x, err := entryNode(v)
					if err != nil {
						return err
					}
					if first {
						x.HeadComment = n.HeadComment
					}
					first = false
					nodes = append(nodes, x)
				}
			}
		}
	}
	for _, v := range running.Services {
		if e.filed[v.Key] == nil {
			x, err := entryNode(v)
			if err != nil {
				return err
			}
			nodes = append(nodes, x)
		}
	}
	list.Content = nodes
	if len(nodes) == 0 {
		drop(e.root, "services")
	}
	return nil
}

// keysOf are the services that an entry stands for.
func (e *editor) keysOf(s *Service) (keys []api.ServiceKey) {
	d := *e.file.dec
	d.errs = nil
	x := &expander{decoder: &d, c: &e.file.Config, lookup: e.lookup, known: map[api.ServiceKey]*yaml.Node{}}
	x.service(s)
	for _, v := range x.state.Services {
		keys = append(keys, v.Key)
	}
	return keys
}

// entryOf is an entry that stands for one service.
func entryOf(v *ServiceState) *Service {
	s := &Service{Name: v.Label, Scheduler: v.Config.Scheduler, SchedulerFlags: v.Config.SchedFlags, OnePacket: v.Config.OnePacket, Servers: serversOf(v)}
	if v.Key.FWMark != 0 {
		if s.FWMark = v.Key.FWMark; v.Key.Family == api.IPv6 {
			s.Family = v.Key.Family
		}
	} else {
		s.Address, s.Port = []string{v.Key.Address.String()}, Ports{{v.Key.Port, v.Key.Port}}
		if v.Key.Protocol != api.TCP {
			s.Protocol = []string{v.Key.Protocol}
		}
	}
	if v.Config.PersistenceSeconds != 0 {
		s.Persistence = &Persistence{
			Timeout: Duration(time.Duration(v.Config.PersistenceSeconds) * time.Second), Netmask: v.Config.Netmask, Engine: v.Config.PersistenceEngine,
		}
	}
	return s
}

func serversOf(v *ServiceState) (list []Server) {
	for i := range v.Servers {
		list = append(list, serverOf(v, &v.Servers[i]))
	}
	return list
}

func serverOf(v *ServiceState, x *ServerState) Server {
	s := Server{Name: x.Label, Address: x.Key.Address.String(), Method: methodNames[x.Config.Method], UpperThreshold: x.Config.Upper, LowerThreshold: x.Config.Lower}
	if x.Key.Port != v.Key.Port {
		s.Port = int(x.Key.Port)
	}
	if x.Config.Weight != 1 {
		s.Weight = &x.Config.Weight
	}
	if s.Method == "dr" || s.Method == "local" {
		s.Method = ""
	}
	if t := tunnelOf(&x.Config); x.Config.Method == api.Tunnel && (t.Type != api.IPIP || t.Checksum != api.NoChecksum) {
		s.Tunnel = &Tunnel{Type: t.Type, Port: int(t.Port), Checksum: t.Checksum}
	}
	return s
}

// service edits the entry of one service.
func (e *editor) service(n *yaml.Node, s *Service, v *ServiceState) error {
	was := e.filed[v.Key]
	want := entryOf(v)
	if !sameConfig(&was.Config, &v.Config) || was.Label != v.Label {
		x := reflect.ValueOf(want).Elem()
		old := reflect.ValueOf(entryOf(was)).Elem()
		for _, f := range fieldsOf(x.Type()) {
			switch f.key {
			case "name", "scheduler", "flags", "persistence", "ops":
				if !reflect.DeepEqual(x.FieldByIndex(f.index).Interface(), old.FieldByIndex(f.index).Interface()) {
					if err := e.set(n, f.key, x.FieldByIndex(f.index), f.form); err != nil {
						return err
					}
				}
			}
		}
	}
	putHealth(n, was.Checks, v.Checks, was.Policy, v.Policy)
	return e.servers(n, s, was, v)
}

// servers edits a service's list of servers.
func (e *editor) servers(n *yaml.Node, s *Service, was, v *ServiceState) error {
	differ := len(was.Servers) != len(v.Servers)
	for i := range v.Servers {
		x := was.server(v.Servers[i].Key)
		differ = differ || x == nil || !sameServer(x, &v.Servers[i])
	}
	if !differ {
		return nil
	}
	list := e.value(n, "servers", yaml.SequenceNode)
	done := map[api.ServerKey]bool{}
	var nodes []*yaml.Node
	for i := range s.Servers {
		keys := e.serverKeys(s, &s.Servers[i], was)
		all := !slices.ContainsFunc(keys, func(k api.ServerKey) bool {
			x := v.server(k)
			return x == nil || !sameServer(x, was.server(k))
		})
		switch {
		case all:
			nodes = append(nodes, list.Content[i])
		case len(keys) == 1 && v.server(keys[0]) == nil:
		default:
			for _, k := range keys {
				x := v.server(k)
				if x == nil {
					continue
				}
				node, err := e.server(list.Content[i], was, v, x, s, len(keys) == 1)
				if err != nil {
					return err
				}
				nodes = append(nodes, node)
			}
		}
		for _, k := range keys {
			done[k] = true
		}
	}
	// Servers of groups: when all are as they were the group stays, else they become the service's own.
	groups := !slices.ContainsFunc(was.Servers, func(x ServerState) bool {
		now := v.server(x.Key)
		return !done[x.Key] && (now == nil || !sameServer(now, &x))
	})
	if !groups {
		drop(n, "groups")
	}
	for i := range v.Servers {
		x := &v.Servers[i]
		if done[x.Key] || groups && was.server(x.Key) != nil {
			continue
		}
		node, err := e.server(nil, was, v, x, s, false)
		if err != nil {
			return err
		}
		nodes = append(nodes, node)
	}
	list.Content = nodes
	if len(nodes) == 0 {
		drop(n, "servers")
	}
	return nil
}

// serverKeys are the servers that an entry of a service stands for.
func (e *editor) serverKeys(s *Service, x *Server, v *ServiceState) (keys []api.ServerKey) {
	d := *e.file.dec
	d.errs = nil
	ex := &expander{decoder: &d, c: &e.file.Config, lookup: e.lookup}
	out := &ServiceState{Key: v.Key}
	ex.servers(s, out, []Server{*x}, map[api.ServerKey]*yaml.Node{})
	for i := range out.Servers {
		keys = append(keys, out.Servers[i].Key)
	}
	return keys
}

// server makes the entry of a server, of the one that there is if that stands for it alone.
func (e *editor) server(n *yaml.Node, was, v *ServiceState, x *ServerState, s *Service, alone bool) (*yaml.Node, error) {
	want := serverOf(v, x)
	if want.Method == "" && s.Method != "" && s.Method != "dr" {
		want.Method = "dr"
	}
	if s.Tunnel != nil && want.Tunnel == nil && x.Config.Method == api.Tunnel {
		want.Tunnel = &Tunnel{Type: api.IPIP} // the service's isn't it
	}
	if want.Method == s.Method {
		want.Method = ""
	}
	fresh, err := encode(reflect.ValueOf(&want), "")
	if err != nil {
		return nil, err
	}
	if !alone || n == nil {
		putHealth(fresh, nil, x.Checks, nil, nil)
		return fresh, nil
	}
	if n.Kind != yaml.MappingNode { // an address alone has got a weight
		putHealth(fresh, nil, x.Checks, nil, nil)
		fresh.HeadComment, fresh.LineComment, fresh.FootComment = n.HeadComment, n.LineComment, n.FootComment
		if keep := n.Value; !strings.Contains(keep, ":") {
			if a := lookup(fresh, "address"); a != nil {
				a.Value = keep // a host name stays one
			}
		}
		return fresh, nil
	}
	for _, f := range fieldsOf(reflect.TypeFor[Server]()) {
		switch f.key {
		case "name", "weight", "method", "tunnel", "upper", "lower":
			value := reflect.ValueOf(&want).Elem().FieldByIndex(f.index)
			if now := lookup(n, f.key); f.key == "weight" && x.Config.Weight == 1 && now != nil {
				value = reflect.ValueOf(&x.Config.Weight)
			}
			if err := e.set(n, f.key, value, f.form); err != nil {
				return nil, err
			}
		}
	}
	if old := was.server(x.Key); old != nil {
		putHealth(n, old.Checks, x.Checks, nil, nil)
	}
	return n, nil
}

// set gives a key of a mapping a value, or takes it away if that is zero.
func (e *editor) set(n *yaml.Node, key string, v reflect.Value, form string) error {
	if v.IsZero() {
		drop(n, key)
		return nil
	}
	value, err := encode(v, form)
	if err != nil {
		return err
	}
	if old := lookup(n, key); old != nil && old.Kind == yaml.ScalarNode && value.Kind == yaml.ScalarNode {
		old.Value, old.Tag, old.Style = value.Value, value.Tag, value.Style
		return nil
	}
	put(n, key, value)
	return nil
}

// put sets a key of a mapping.
func put(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			value.LineComment = n.Content[i+1].LineComment
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, scalarNode(key), value)
}

// drop takes a key out of a mapping.
func drop(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// value is the value of a key, made if there is none of that kind.
func (e *editor) value(n *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	v := lookup(n, key)
	switch {
	case v == nil || isNull(v):
		v = &yaml.Node{Kind: kind}
		put(n, key, v)
	case v.Kind == yaml.ScalarNode && kind == yaml.SequenceNode: // one, without brackets
		v = &yaml.Node{Kind: kind, Content: []*yaml.Node{v}}
		put(n, key, v)
	}
	return v
}

// marks edits the mark rules: those that stay keep their nodes.
func (e *editor) marks(rules []api.MarkRule) {
	was := map[api.MarkRule]*yaml.Node{}
	list := lookup(e.root, "marks")
	c := &e.file.Config
	var order []api.MarkRule
	for i := range c.Marks {
		if r, err := c.Marks[i].rule(); err == nil && list != nil {
			r = plainRules([]api.MarkRule{r})[0]
			was[r] = list.Content[i]
			order = append(order, r)
		}
	}
	if slices.Equal(order, rules) {
		return
	}
	if len(rules) == 0 {
		drop(e.root, "marks")
		return
	}
	list = e.value(e.root, "marks", yaml.SequenceNode)
	list.Content = nil
	for _, r := range rules {
		n := was[r]
		if n == nil {
			m := MarkRule{Mark: r.Mark, Interface: r.Interface, Protocol: r.Protocol, SourcePorts: r.SrcPorts, DestinationPorts: r.DstPorts,
				Source: networkText(r.Src), Destination: networkText(r.Dst)}
			var err error
			if n, err = encode(reflect.ValueOf(&m), ""); err != nil {
				continue // found out when the text is compared with what is wanted
			}
		}
		list.Content = append(list.Content, n)
	}
}

func networkText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// settings edits settings and timeouts.
func (e *editor) settings(running, filed *State) {
	d := differ{last: new(State)}
	have := complete(filed)
	d.settings(have.Settings, running.Settings)
	if len(d.Settings) > 0 {
		n := e.value(e.root, "settings", yaml.MappingNode)
		for _, s := range d.Settings {
			key := strings.TrimPrefix(s.Name, "net.ipv4.vs.")
			for i := 0; i+1 < len(n.Content); i += 2 {
				if x, err := findSetting(n.Content[i].Value); err == nil && x.Name == s.Name {
					key = n.Content[i].Value
				}
			}
			put(n, key, scalarNode(s.Value))
		}
	}
	for _, x := range []struct {
		key       string
		was, want uint32
	}{{"tcp", have.Timeouts.TCP, running.Timeouts.TCP}, {"tcpfin", have.Timeouts.TCPFin, running.Timeouts.TCPFin}, {"udp", have.Timeouts.UDP, running.Timeouts.UDP}} {
		if x.was != x.want {
			put(e.value(e.root, "timeouts", yaml.MappingNode), x.key, scalarNode(spanText(Duration(time.Duration(x.want)*time.Second))))
		}
	}
}

// daemons edits the sync daemons.
func (e *editor) daemons(running, filed []api.Daemon) {
	d := differ{last: new(State)}
	d.daemons(filed, running)
	if len(d.Ops) == 0 {
		return
	}
	if len(running) == 0 {
		drop(e.root, "sync")
		return
	}
	list := e.value(e.root, "sync", yaml.SequenceNode)
	list.Content = nil
	for _, x := range running {
		s := SyncDaemon{Role: x.Role, Interface: x.Interface, SyncID: int(x.SyncID), MaxLen: int(x.MaxLen), Group: x.Group, Port: int(x.Port), TTL: int(x.TTL)}
		if n, err := encode(reflect.ValueOf(&s), ""); err == nil {
			list.Content = append(list.Content, n)
		}
	}
}
