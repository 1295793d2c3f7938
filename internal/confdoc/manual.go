package main

import (
	"bytes"
	"fmt"
	"strings"
)

// manual is uvs.yaml(5).
func manual(doc *document) []byte {
	var b bytes.Buffer
	b.WriteString(`.\" Made by internal/confdoc from the definitions that uvsd reads the file by: go generate ./config
.Dd November 25, 2026
.Dt UVS.YAML 5
.Os uvs
.Sh NAME
.Nm uvs.yaml
.Nd configuration of the Userspace Virtual Server's director
.Sh DESCRIPTION
.Nm
says what
.Xr uvsd 8
has: its interfaces, virtual services, real servers, health checks, mark rules and settings, in YAML.
It is read at the start, by
.Nm uvsadm Cm reload ,
at SIGHUP, and with
.Cm watch : true
whenever it changes.
What differs from what is running is applied as one change; whatever both have is edited in place and keeps its connections, counters and scheduler's position.
The file is read strictly: if anything is wrong with it, nothing is changed, and
.Nm uvsd Fl -check Ar file
says all of it, each by line and column.
.Pp
Times are written as 500ms, 30s, 5m, 1h30m or 2d.
Lists of one may stand without brackets where it says
.Dq or a list .
`)
	for _, s := range doc.sections {
		fmt.Fprintf(&b, ".Ss %s\n", s.title)
		if s.path != "" {
			fmt.Fprintf(&b, ".Cm %s :\n%s\n", roff(s.path), sentences(s.text))
		}
		items(&b, s.keys)
	}
	for _, k := range doc.kinds {
		fmt.Fprintf(&b, ".Ss Checks of the kind %s\n%s\n", k.name, sentences(k.text))
		items(&b, k.options)
	}
	b.WriteString(`.Sh FILES
.Bl -tag -width /etc/uvs/uvs.yaml
.It Pa /etc/uvs/uvs.yaml
the default.
.El
.Sh EXAMPLES
.Bd -literal
interfaces: [eth0]
services:
  - name: web
    address: 192.0.2.100
    port: [80, 443]
    scheduler: wlc
    checks: tcp
    servers:
      - {name: web1, address: 192.0.2.11}
      - {name: web2, address: 192.0.2.12, weight: 2}
.Ed
.Sh SEE ALSO
.Xr uvsadm 8 ,
.Xr uvsd 8
`)
	return b.Bytes()
}

func items(b *bytes.Buffer, keys []entry) {
	if len(keys) == 0 {
		return
	}
	b.WriteString(".Bl -tag -width Ds\n")
	for i := range keys {
		e := &keys[i]
		if e.Inline {
			continue
		}
		fmt.Fprintf(b, ".It Cm %s : Ar %s\n", roff(e.Name), strings.ReplaceAll(roff(valueText(e)), " ", "\\ "))
		text := e.text
		switch {
		case e.Required:
			text += " Required."
		case e.Default != "":
			text += " The default is " + e.Default + "."
		}
		b.WriteString(sentences(text) + "\n")
	}
	b.WriteString(".El\n")
}

// sentences puts each sentence on a line of its own, none of which is a request.
func sentences(s string) string {
	lines := strings.Split(strings.ReplaceAll(roff(s), ". ", ".\n"), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func roff(s string) string { return strings.ReplaceAll(s, `\`, `\e`) }
