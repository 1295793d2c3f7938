package conntrack

import "uvs/packet"

// Peek says what In would do with a packet from the client, without doing it; c is filled where there is an entry.
func (t *Table) Peek(f *packet.Flow, event uint8, now int64, c *Conn) Outcome {
	var k Key
	if t.Hash(f, In, &k); k.kind == keyNone {
		return Miss
	}
	s := &t.conns[k.shard]
	s.lock()
	defer s.unlock()
	slot, e := s.find(&k)
	if e == nil || e.expired(tickOf(now)) {
		return Miss
	}
	s.fill(c, slot, e, In, now)
	return judge(t.rules.Load(), e, t.server(e), event)
}

// PeekTemplate says what FindTemplateData would, and puts no template aside.
func (t *Table) PeekTemplate(k *TemplateKey, data []byte, now int64, c *Conn) Outcome {
	var key Key
	if !t.templateKey(k, &key) {
		return Miss
	}
	s := &t.templates[key.shard]
	s.lock()
	defer s.unlock()
	slot, e := s.find(&key)
	if len(data) > 0 {
		slot, e = s.engine.find(s, &key, data)
	}
	if e == nil || e.expired(tickOf(now)) && e.children() == 0 {
		return Miss
	}
	s.fill(c, slot, e, In, now)
	if !t.usable(e) {
		return MissNoServer
	}
	return Hit
}

// usable says that template e still leads to a server (ip_vs_conn.c, ip_vs_check_template).
func (t *Table) usable(e *entry) bool {
	rs := t.server(e)
	return rs != nil && rs.Available() && (rs.Weight() != 0 || !t.rules.Load().ExpireQuiescentTemplate)
}
