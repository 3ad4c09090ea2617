/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* pr_fmt.h - every log line of a module begins with the module's name. Included by kbuild flags. */
#ifndef pr_fmt
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#endif
