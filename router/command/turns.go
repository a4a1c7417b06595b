package command

import "github.com/sluice-iot/sluice/internal/iot"

// waitingShare is how many times what is left of the room a tenant may have of it: alone
// it gets three quarters. Else commands to devices that do not exist, of which
// nothing is kept, let none of others in.
const waitingShare = 3

// turns are the lines that nobody works on yet, and how many wait in lines at all. The
// tenants take turns. Not safe for concurrent use.
type turns struct {
	waiting int
	tenants map[iot.TenantID]*tenantTurns
	next    []*tenantTurns // those with lines
}

type tenantTurns struct {
	waiting int
	lines   []*line
}

// enter counts one who waits; false = there is no room.
func (t *turns) enter(tenant iot.TenantID) bool {
	of := t.tenants[tenant]
	if t.waiting >= maxWaiting || of != nil && of.waiting >= waitingShare*(maxWaiting-t.waiting) {
		return false
	}
	if of == nil {
		if t.tenants == nil {
			t.tenants = map[iot.TenantID]*tenantTurns{}
		}
		of = &tenantTurns{}
		t.tenants[tenant] = of
	}
	t.waiting++
	of.waiting++
	return true
}

// leave is for n of a tenant who entered. None of them is in a line that is left.
func (t *turns) leave(tenant iot.TenantID, n int) {
	of := t.tenants[tenant]
	t.waiting -= n
	if of.waiting -= n; of.waiting == 0 {
		delete(t.tenants, tenant)
	}
}

// push adds the line of one who has entered.
func (t *turns) push(l *line) {
	of := t.tenants[l.key.tenant]
	if len(of.lines) == 0 {
		t.next = append(t.next, of)
	}
	of.lines = append(of.lines, l)
}

// pop takes the line whose turn it is; nil = there is none.
func (t *turns) pop() *line {
	if len(t.next) == 0 {
		t.next = nil
		return nil
	}
	of := t.next[0]
	t.next[0], t.next = nil, t.next[1:]
	l := of.lines[0]
	of.lines[0], of.lines = nil, of.lines[1:]
	if len(of.lines) > 0 {
		t.next = append(t.next, of)
	}
	return l
}
