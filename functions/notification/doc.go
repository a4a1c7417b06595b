// Package notification answers io.sluice.notification.derive: what applications
// are to be told of changes of devices' presence (contract: events 4.3; messaging 11
// and 12.2). It depends on nothing but the question.
package notification
