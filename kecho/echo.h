/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef KECHO_ECHO_H
#define KECHO_ECHO_H

#include "ksrv.h"

extern const struct ksrv_ops echo_ops;

#endif
