package importer

import "strings"

// ldKinds are the kinds of service that ldirectord can negotiate with. nil is none at all.
var ldKinds = map[string]func(*ldCheck, *check){
	"none":       nil,
	"http":       func(c *ldCheck, k *check) { c.http(k, "http") },
	"https":      func(c *ldCheck, k *check) { c.http(k, "https") },
	"http_proxy": func(c *ldCheck, k *check) { c.plainly(k, "uvs asks no proxy for a page: it only connects") },
	"ftp": func(c *ldCheck, k *check) {
		k.Kind = "ftp"
		c.take(k, map[string]string{"login": "user", "passwd": "password"})
		c.without("request", "uvs's ftp check logs in and fetches no file")
		c.without("receive", "uvs's ftp check logs in and fetches no file")
	},
	"smtp":       func(c *ldCheck, k *check) { k.Kind = "smtp" },
	"submission": func(c *ldCheck, k *check) { k.Kind = "smtp" },
	"pop":        func(c *ldCheck, k *check) { c.mail(k, "pop3", "") },
	"pops":       func(c *ldCheck, k *check) { c.mail(k, "pop3", "yes") },
	"imap":       func(c *ldCheck, k *check) { c.mail(k, "imap", "") },
	"imaps":      func(c *ldCheck, k *check) { c.mail(k, "imap", "yes") },
	"ldap":       func(c *ldCheck, k *check) { c.ldap(k, "") },
	"ldaps":      func(c *ldCheck, k *check) { c.ldap(k, "yes") },
	"dns": func(c *ldCheck, k *check) {
		k.Kind = "dns"
		c.take(k, map[string]string{"request": dnsName})
		if c.value("receive") != "" {
			c.dnsAnswer(k)
		}
	},
	"mysql": func(c *ldCheck, k *check) {
		c.sql(k, "mysql", map[string]string{"login": "user", "passwd": "password"})
	},
	"pgsql": func(c *ldCheck, k *check) {
		c.sql(k, "postgres", map[string]string{"login": "user", "database": "database"})
	},
	"oracle": func(c *ldCheck, k *check) { c.plainly(k, "uvs speaks no Oracle: it only connects") },
	"nntp": func(c *ldCheck, k *check) {
		k.Kind = talkKind
		k.options[talkMatch] = "^20[01]"
	},
	"radius": func(c *ldCheck, k *check) {
		k.Kind = "radius"
		c.take(k, map[string]string{"login": "user", "passwd": "password", "secret": "secret"})
	},
	"sip": func(c *ldCheck, k *check) {
		k.Kind = "sip"
		if v := c.value("login"); v != "" {
			k.options["from"] = "sip:" + v
			c.s.uses(map[string]string{"login": "from"})
		}
		c.without("passwd", "uvs's sip check asks without one")
	},
	"simpletcp": func(c *ldCheck, k *check) {
		k.Kind = talkKind
		if v := c.value("request"); v != "" {
			k.options[talkSend] = hexEscapes([]byte(strings.ReplaceAll(v, `\n`, "\n")))
			c.s.uses(map[string]string{"request": talkSend})
		}
		c.pattern(k, talkMatch)
	},
}

// without says that a directive of the service isn't used.
func (c *ldCheck) without(name, why string) {
	if d := c.s.at.find(name); d != nil {
		d.missing(why)
	}
}

// approximately grades the directive that names the kind of service, or else the server.
func (c *ldCheck) approximately(how string) {
	d := c.s.at.find("service")
	if d == nil {
		d = c.real
	}
	d.approx(how)
}

func (c *ldCheck) mail(k *check, kind, tls string) {
	k.Kind = kind
	if tls != "" {
		k.options["tls"] = tls
	}
	c.take(k, map[string]string{"login": "user", "passwd": "password"})
}

func (c *ldCheck) ldap(k *check, tls string) {
	k.Kind = "ldap"
	if tls != "" {
		k.options["tls"] = tls
	}
	c.take(k, map[string]string{"login": "dn", "passwd": "password"})
	c.without("request", "uvs's ldap check binds and searches for nothing")
	c.without("receive", "uvs's ldap check binds and searches for nothing")
}

// sql maps the check of a database, which logs in or greets and asks nothing.
func (c *ldCheck) sql(k *check, kind string, keys map[string]string) {
	k.Kind = kind
	c.take(k, keys)
	for _, name := range []string{"request", "database", "passwd"} {
		if keys[name] == "" {
			c.without(name, "uvs's "+kind+" check begins a session and asks nothing")
		}
	}
}

// dnsAnswer maps what a name server must answer, which here is one record and in ldirectord a pattern.
func (c *ldCheck) dnsAnswer(k *check) {
	v := strings.ReplaceAll(c.value("receive"), `\.`, ".")
	d := c.s.at.find("receive")
	if c.receive != nil || d == nil {
		d = c.real
	}
	if strings.ContainsAny(v, `*+?()[]{}|^$\`) {
		d.missing("uvs looks for one record, not for a pattern")
		return
	}
	k.options[dnsAnswer] = v
	d.exact("checks." + dnsAnswer)
	if k.options[dnsType] == nil && strings.Contains(v, ":") {
		k.options[dnsType] = "AAAA"
	}
}

// plainly only connects.
func (c *ldCheck) plainly(k *check, why string) {
	k.Kind = "tcp"
	c.approximately("checks.kind: " + why)
	for _, name := range ldUses {
		if d := c.s.at.find(name); d != nil && !strings.HasPrefix(name, "http") {
			d.missing(why)
		}
	}
}
